"""Who is asking (a token, or a page's session) and what the token may be used for."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from annotate.models import ApiToken, User
from annotate.services.tokens import find_token, touch_token

if TYPE_CHECKING:
    # rest_framework.views reads the settings that name this module.
    from rest_framework.views import APIView

Scope = ApiToken.Scope
RequiredScope = Scope | Mapping[str, Scope] | None


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Token <secret>`. Unknown, revoked and expired tokens look the same to the caller."""

    keyword = "Token"

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != self.keyword.lower():
            return None
        token = find_token(secret.strip())
        if token is None:
            raise AuthenticationFailed("The token is unknown, expired or revoked.")
        touch_token(token)
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return self.keyword


class PageSession(SessionAuthentication):
    """The session of someone logged in through the pages. Django's CSRF check stands in front of every change."""

    def enforce_csrf(self, request: Request) -> None:
        # On Django's own request: asking DRF's for its POST reads the body, which idempotency keys hash later.
        super().enforce_csrf(getattr(request, "_request", request))


class HasScope(BasePermission):
    """Someone is logged in and, if it is a token that asks, the token has the scope that the view names.

    A view says `required_scope = Scope.TRAIN`, or one scope per method: `{"GET": Scope.READ, "POST": Scope.ANNOTATE}`.
    What it does not say is `read` for GET and HEAD and `write` for the rest. A session has every scope: what its user
    may do is for the role in the project alone.
    """

    message = "This token does not have the scope that this needs."
    code = "scope"

    def has_permission(self, request: Request, view: "APIView") -> bool:
        if not request.user.is_authenticated:
            return False
        if not isinstance(request.auth, ApiToken):
            return True
        return scope_for(view, str(request.method)) in request.auth.scopes


def scope_for(view: "APIView | type[APIView]", method: str) -> Scope:
    """The scope a token needs for this method of the view."""
    required: RequiredScope = getattr(view, "required_scope", None)
    if isinstance(required, Mapping):
        required = required.get("GET" if method == "HEAD" else method)
    if required is None:
        return Scope.READ if method in SAFE_METHODS else Scope.WRITE
    return Scope(required)
