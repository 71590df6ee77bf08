"""What every endpoint has in common."""

from collections.abc import Sequence
from typing import Any, cast

from rest_framework.exceptions import ValidationError
from rest_framework.parsers import BaseParser
from rest_framework.permissions import BasePermission
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from annotate.api.authentication import HasScope, PageSession, RequiredScope, TokenAuthentication
from annotate.api.negotiation import OneFormat
from annotate.api.parsers import StrictJSONParser
from annotate.models import User


class Endpoint(APIView):
    """One address of the API. Thin: a serializer checks the shape, a getter authorises, a service decides.

    Authentication, scopes, error shape and strict JSON are named here as well as in the settings, so that no setting
    can open an endpoint.
    """

    authentication_classes = (TokenAuthentication, PageSession)
    permission_classes: Sequence[type[BasePermission]] = (HasScope,)
    parser_classes: Sequence[type[BaseParser]] = (StrictJSONParser,)
    renderer_classes: Sequence[type[BaseRenderer]] = (JSONRenderer,)
    content_negotiation_class = OneFormat
    required_scope: RequiredScope = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        # Postgres refuses a NUL wherever it gets to; bodies are checked by their parser.
        faulty = {name: ["Holds a NUL."] for name, value in request.query_params.items() if "\0" in f"{name}{value}"}
        if faulty:
            raise ValidationError(cast(Any, faulty))


def asking(request: Request) -> User:
    """The user behind a request that passed the permission check."""
    return cast(User, request.user)
