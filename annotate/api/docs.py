"""The API's own description: the OpenAPI document, and the API in the browser, from files on this server."""

import functools
from typing import Any

from django.http import HttpResponse
from django.utils import translation
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiYamlRenderer
from drf_spectacular.utils import OpenApiParameter, extend_schema
from drf_spectacular.views import SpectacularSwaggerSplitView
from rest_framework.request import Request

from annotate.api.base import Endpoint
from annotate.api.queries import one_of
from annotate.api.sending import in_full_or_not

RENDERERS: dict[str, type[OpenApiYamlRenderer] | type[OpenApiJsonRenderer]] = {
    "yaml": OpenApiYamlRenderer,
    "json": OpenApiJsonRenderer,
}


class Document(Endpoint):
    @extend_schema(exclude=True, parameters=[OpenApiParameter("format", str, enum=list(RENDERERS))])
    def get(self, request: Request) -> HttpResponse:
        """The OpenAPI document: as YAML, or as JSON if the address or the Accept header says so."""
        accepted = "json" if "json" in request.headers.get("Accept", "") else "yaml"
        kind = one_of(request, "format", list(RENDERERS), default=accepted)
        answer = HttpResponse(document_as(kind), content_type=RENDERERS[kind].media_type)
        answer.headers["Content-Disposition"] = f'inline; filename="Plackett.{kind}"'
        answer.headers["Vary"] = "Accept"
        return in_full_or_not(answer, request)


@functools.cache
def document_as(kind: str) -> bytes:
    """Written once in a process for each form."""
    made: str | bytes = RENDERERS[kind]().render(document(), renderer_context={})
    return made.encode() if isinstance(made, str) else made


@functools.cache
def document() -> Any:
    """Made once in a process: it takes seconds, and is the same for everybody."""
    with translation.override("en"):
        return SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]


class ApiDocs(SpectacularSwaggerSplitView):
    """Swagger UI with page and script apart, so that the content security policy needs nothing inline."""

    template_name = "annotate/api_docs.html"
