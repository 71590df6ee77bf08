"""What a request hears that brings no valid CSRF token, which is mostly one from a page older than the last log-in."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext as _
from django.views import csrf

from annotate.api.errors import error_body


def refused(request: HttpRequest, reason: str = "") -> HttpResponse:
    """The setting CSRF_FAILURE_VIEW: the API's error shape for scripts, the page `403_csrf.html` for everybody else."""
    if "application/json" not in request.headers.get("Accept", ""):
        return csrf.csrf_failure(request, reason)
    # Scripts go by the word CSRF, which the API's own answer holds too, so it stays in every language.
    message = _("The CSRF token is missing or too old. Nothing was changed; log in again or reload the page.")
    return JsonResponse(error_body("csrf_failed", message), status=403)
