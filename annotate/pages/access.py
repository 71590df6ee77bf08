"""What every page has in common: someone is logged in, and a refusal becomes a page that says what to do."""

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, cast

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache

from annotate.errors import Refused
from annotate.models import User

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponse]


def page(view: View[P]) -> View[P]:
    """For views that make a page: asks for a log-in first, and shows `Refused` with its status and its sentence.

    No browser keeps the page, so that going back after the log-out shows nothing.
    """

    @functools.wraps(view)
    def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        try:
            return view(request, *args, **kwargs)
        except Refused as refused:
            template = f"{refused.status}.html" if refused.status in {403, 404} else "400.html"
            return render(request, template, {"reason": refused.message}, status=refused.status)

    return cast("View[P]", never_cache(login_required(guarded)))


def page_data(view: View[P]) -> View[P]:
    """For addresses that a page's script calls: answers in the API's error shape, 401 instead of the log-in page.

    No browser keeps the answer, as with a page.
    """

    @functools.wraps(view)
    def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        if not request.user.is_authenticated:
            return _error(401, "not_authenticated", _("You are no longer logged in."))
        try:
            return view(request, *args, **kwargs)
        except Refused as refused:
            return _error(refused.status, refused.code, refused.message, refused.fields, refused.extra)

    return cast("View[P]", never_cache(guarded))


def _error(
    status: int,
    code: str,
    message: str,
    fields: dict[str, str] | None = None,
    extra: dict[str, object] | None = None,
) -> JsonResponse:
    error: dict[str, object] = {"code": code, "message": message, "fields": fields or {}}
    if extra:
        error["extra"] = extra
    return JsonResponse({"error": error}, status=status)


def visitor(request: HttpRequest) -> User:
    """The user of a page that asked for a log-in."""
    return cast(User, request.user)
