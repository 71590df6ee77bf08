"""What is done around every request: it is counted, it gets its content security policy, and its language."""

import time
from collections.abc import Callable

from csp.constants import SELF, UNSAFE_EVAL, UNSAFE_INLINE
from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.utils import translation
from django.utils.cache import patch_vary_headers
from django.utils.translation.trans_real import parse_accept_lang_header

from webapp.metrics import count_request

# The admin's theme brings inline styles, data: images and expressions evaluated by Alpine.
ADMIN_POLICY = {
    "script-src": [SELF, UNSAFE_INLINE, UNSAFE_EVAL],
    "style-src": [SELF, UNSAFE_INLINE],
    "img-src": [SELF, "data:"],
}

# The API browser's stylesheet holds its icons.
DOCS_POLICY = {"img-src": [SELF, "data:"]}


class CountRequests:
    """Counts requests and their time for /metrics; static files are answered before and are not counted."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        began = time.perf_counter()
        response = self.get_response(request)
        count_request(request, status=response.status_code, seconds=time.perf_counter() - began)
        return response


class LooserPolicyForTools:
    """Loosens script, style and image sources under the admin, image sources of the API browser, nothing else."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        for path, policy in (("/admin/", ADMIN_POLICY), ("/api/docs/", DOCS_POLICY)):
            if request.path.startswith(path):
                response._csp_replace = policy  # type: ignore[attr-defined]  # django-csp's own hook
        return response


class LanguageOfVisitor:
    """Speaks the language that the visitor chose; who chose none hears the browser's, if we have it, else English.

    A log-in's choice stands with the user, so it is the same on every machine; without a log-in it stands in a cookie.
    Programs that send no Accept-Language get English.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        translation.activate(chosen_language(request) or browser_language(request))
        request.LANGUAGE_CODE = translation.get_language()
        response = self.get_response(request)
        patch_vary_headers(response, ("Accept-Language",))
        response.headers.setdefault("Content-Language", request.LANGUAGE_CODE)
        return response


def chosen_language(request: HttpRequest) -> str:
    """What the visitor set; empty where nothing is set, or nothing that we speak."""
    try:
        user = request.user
        chosen = user.language if user.is_authenticated else request.COOKIES.get(settings.LANGUAGE_COOKIE_NAME, "")
    except DatabaseError:  # whatever the view has to say about it comes in the browser's language
        return ""
    return chosen if chosen in dict(settings.LANGUAGES) else ""


def browser_language(request: HttpRequest) -> str:
    """The first language of the browser's list that we speak; English where there is none."""
    for tag, _ in parse_accept_lang_header(request.headers.get("Accept-Language", "")):
        try:
            return translation.get_supported_language_variant(tag)
        except LookupError:
            continue
    return settings.LANGUAGE_CODE
