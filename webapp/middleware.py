"""The one place where the content security policy is looser than on our own pages."""

from collections.abc import Callable

from csp.constants import SELF, UNSAFE_EVAL, UNSAFE_INLINE
from django.http import HttpRequest, HttpResponse

# The admin's theme and the API browser bring inline styles, data: images and expressions evaluated by Alpine.
TOOL_PATHS = ("/admin/", "/api/docs/")
TOOL_POLICY = {
    "script-src": [SELF, UNSAFE_INLINE, UNSAFE_EVAL],
    "style-src": [SELF, UNSAFE_INLINE],
    "img-src": [SELF, "data:"],
}


class LooserPolicyForTools:
    """Loosens script, style and image sources under the admin and the API browser, nowhere else."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if request.path.startswith(TOOL_PATHS):
            response._csp_replace = TOOL_POLICY  # type: ignore[attr-defined]  # django-csp's own hook
        return response
