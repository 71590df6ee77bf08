"""The one place where the content security policy is looser than on our own pages."""

from collections.abc import Callable

from csp.constants import SELF, UNSAFE_EVAL, UNSAFE_INLINE
from django.http import HttpRequest, HttpResponse

# The admin's theme brings inline styles, data: images and expressions evaluated by Alpine.
ADMIN_POLICY = {
    "script-src": [SELF, UNSAFE_INLINE, UNSAFE_EVAL],
    "style-src": [SELF, UNSAFE_INLINE],
    "img-src": [SELF, "data:"],
}

# The API browser's stylesheet holds its icons.
DOCS_POLICY = {"img-src": [SELF, "data:"]}


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
