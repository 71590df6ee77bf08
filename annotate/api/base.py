"""What every endpoint has in common."""

from typing import ClassVar, cast

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from annotate.api.authentication import HasScope, PageSession, RequiredScope, TokenAuthentication
from annotate.api.parsers import StrictJSONParser
from annotate.models import User


class Endpoint(APIView):
    """One address of the API. Thin: a serializer checks the shape, a getter authorises, a service decides.

    Authentication, scopes, error shape and strict JSON are named here as well as in the settings, so that no setting
    can open an endpoint.
    """

    authentication_classes = (TokenAuthentication, PageSession)
    permission_classes: ClassVar[tuple[type[BasePermission], ...]] = (HasScope,)  # type: ignore[misc]
    parser_classes = (StrictJSONParser,)
    required_scope: RequiredScope = None


def asking(request: Request) -> User:
    """The user behind a request that passed the permission check."""
    return cast(User, request.user)
