"""What every endpoint has in common."""

from collections.abc import Sequence
from typing import Any, cast

from django.utils.translation import gettext as _
from rest_framework.exceptions import Throttled, ValidationError
from rest_framework.parsers import BaseParser
from rest_framework.permissions import BasePermission
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotate.api.authentication import HasScope, PageSession, RequiredScope, TokenAuthentication
from annotate.api.errors import LengthRequired
from annotate.api.negotiation import OneFormat
from annotate.api.parsers import StrictJSONParser
from annotate.api.queries import refuse_unknown
from annotate.api.sending import send
from annotate.models import ApiToken, User
from annotate.services.request_rates import Count, count_request


class Endpoint(APIView):
    """One address of the API. Thin: a serializer checks the shape, a getter authorises, a service decides.

    Authentication, scopes, rates, error shape and strict JSON are named here as well as in the settings, so that no
    setting can open an endpoint.
    """

    authentication_classes = (TokenAuthentication, PageSession)
    permission_classes: Sequence[type[BasePermission]] = (HasScope,)
    parser_classes: Sequence[type[BaseParser]] = (StrictJSONParser,)
    renderer_classes: Sequence[type[BaseRenderer]] = (JSONRenderer,)
    content_negotiation_class = OneFormat
    required_scope: RequiredScope = None
    #: Answers hold a secret beside text of the caller's, so they are never compressed.
    tells_secrets = False

    counted: Count | None = None

    def perform_authentication(self, request: Request) -> None:
        """Counts the request as soon as its token is known, so that what is refused afterwards counts too.

        Sessions are people at pages, and have no limit.
        """
        super().perform_authentication(request)
        if isinstance(request.auth, ApiToken):
            # By its hash: a restored database, or another on the same Redis, may give a number again.
            self.counted = count_request(request.auth.digest[:32])
        if self.counted is not None and not self.counted.allowed:
            raise Throttled(wait=self.counted.wait_seconds, detail=_("Too many requests with this token."))

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if "Transfer-Encoding" in request.headers:
            raise LengthRequired
        # Postgres refuses a NUL wherever it gets to; bodies are checked by their parser.
        faulty = {name: ["Holds a NUL."] for name, value in request.query_params.items() if "\0" in f"{name}{value}"}
        if faulty:
            raise ValidationError(cast(Any, faulty))
        refuse_unknown(request, self)

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        answer = super().finalize_response(request, response, *args, **kwargs)
        if self.counted is not None:
            for name, value in rate_headers(self.counted).items():
                answer.headers[name] = value
        return send(answer, request, secret=self.tells_secrets)


def rate_headers(count: Count) -> dict[str, str]:
    """The two fields of the IETF's draft on RateLimit header fields: the rule, and where the caller stands."""
    limit = count.limit
    return {
        "RateLimit-Policy": f'"token";q={limit.burst};w={limit.refill_seconds}',
        "RateLimit": f'"token";r={count.remaining};t={count.full_seconds}',
    }


def asking(request: Request) -> User:
    """The user behind a request that passed the permission check."""
    return cast(User, request.user)
