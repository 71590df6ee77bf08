"""Prompts and their responses: bulk in, a list out."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.exceptions import ParseError
from rest_framework.request import Request
from rest_framework.response import Response as Answer

from annotate import interchange
from annotate.api.base import Endpoint, asking
from annotate.api.idempotency import idempotent_once_finished
from annotate.api.pagination import PAGE_PARAMETERS, page_of
from annotate.api.parsers import RecordLinesParser, RecordListParser
from annotate.api.queries import one_of, whole_number, yes_or_no
from annotate.api.serializers import ImportAnswer, PromptPage, RecordsShape
from annotate.interchange.records import FileError
from annotate.models import RankingTask, Role
from annotate.selectors.access import get_project_for_data
from annotate.selectors.prompts import prompt_content, prompts_of
from annotate.services.imports import import_stream

FORMATS = sorted(interchange.FORMATS)
IMPORT_PARAMETERS = [
    OpenApiParameter("format", str, enum=FORMATS, default="plackett"),
    OpenApiParameter(
        "overlap", int, description="Annotators per new task; the project's overlap unless told, 0 for none."
    ),
    OpenApiParameter("priority", int, description="0 urgent, 1 high, 2 normal, 3 low.", default=2),
    OpenApiParameter("strict", bool, description="1: any fault refuses everything (422).", default=False),
    OpenApiParameter("dry_run", bool, description="1: report what would happen, write nothing.", default=False),
]


class Prompts(Endpoint):
    parser_classes = (RecordListParser, RecordLinesParser)

    @extend_schema(operation_id="list_prompts", parameters=PAGE_PARAMETERS, responses=PromptPage)
    def get(self, request: Request, slug: str) -> Answer:
        """Prompts with their responses, for reviewers, managers and engineers: it names the models."""
        project = get_project_for_data(request.user, slug, role=Role.REVIEWER)
        return Answer(page_of(prompts_of(project), request, lambda rows: [prompt_content(row) for row in rows]))

    @extend_schema(
        operation_id="import_prompts",
        parameters=IMPORT_PARAMETERS,
        request={"application/json": RecordsShape, "application/x-ndjson": bytes},
        responses={200: ImportAnswer},
    )
    @idempotent_once_finished
    def post(self, request: Request, slug: str) -> Answer:
        """Takes in native records. Bad ones are reported with line and reason, the others written; doing it again
        changes nothing. A body that cannot be read to its end changes nothing either."""
        project = get_project_for_data(request.user, slug, role=Role.MANAGER)
        options = _options(request)
        kind = one_of(request, "format", FORMATS, default="plackett")
        try:
            report = import_stream(
                project=project,
                stream=_body(request),
                format=kind,
                source="API",
                created_by=asking(request),
                **options,
            )
        except FileError as problem:
            raise ParseError(f"The body cannot be read, and nothing was changed: {problem}.") from None
        return Answer(report.as_json())


def _options(request: Request) -> dict[str, Any]:
    priority = whole_number(request, "priority", high=max(RankingTask.Priority.values))
    return {
        "overlap": whole_number(request, "overlap", high=50),
        "priority": RankingTask.Priority.NORMAL if priority is None else priority,
        "strict": yes_or_no(request, "strict"),
        "dry_run": yes_or_no(request, "dry_run"),
    }


def _body(request: Request) -> Any:
    body = request.data
    if not hasattr(body, "read"):
        raise ParseError("The body is empty.")
    return body
