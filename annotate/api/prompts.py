"""Prompts and their responses: bulk in, a list out."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.exceptions import ParseError, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response as Answer

from annotate.api.base import Endpoint, asking
from annotate.api.filters import filtered, number, parameters, span, text, word, yes
from annotate.api.idempotency import idempotent_once_finished
from annotate.api.pagination import page_of, page_parameters
from annotate.api.parsers import CsvParser, ParquetParser, RecordLinesParser, RecordListParser
from annotate.api.queries import one_of, whole_number, yes_or_no
from annotate.api.shapes.prompts import ImportAnswer, PromptPage, RecordsShape
from annotate.interchange import FORMATS
from annotate.interchange.mapping import MappingError, mapping_from
from annotate.interchange.records import FileError
from annotate.models import RankingTask, Role, Split
from annotate.selectors.access import get_project_for_data
from annotate.selectors.prompts import prompt_content, prompts_of
from annotate.services.imports import import_stream

IMPORT_PARAMETERS = [
    OpenApiParameter(
        "format",
        str,
        enum=tuple(FORMATS),
        description="`plackett` unless told; of a body that is CSV or Parquet, that.",
    ),
    OpenApiParameter(
        "map",
        str,
        many=True,
        description="COLUMN=FIELD, repeatable: which column (or name) of the body is which field, for `csv`, "
        "`parquet`, `label-studio` and `argilla`.",
    ),
    OpenApiParameter(
        "overlap", int, description="Annotators per new task; the project's overlap unless told, 0 for none."
    ),
    OpenApiParameter("priority", int, description="0 urgent, 1 high, 2 normal, 3 low.", default=2),
    OpenApiParameter("strict", bool, description="1: any fault refuses everything (422).", default=False),
    OpenApiParameter("dry_run", bool, description="1: report what would happen, write nothing.", default=False),
]


ORDERS = {"id": "pk", "created_at": "created_at"}
FILTERS = (
    text("external_id", "external_id", "Only the one that its importer calls so."),
    word("split", "split_group__split", Split.values, "Only of this split."),
    text("tag", "tags__contains", "Only those with this tag.", same=lambda tag: [tag]),
    text("language", "language", "Only of this language, as it was given."),
    number("batch", "batch", "Only of this import."),
    yes(
        "withdrawn",
        "withdrawn_at__isnull",
        "1: only what was withdrawn; 0: only the rest.",
        same=lambda value: not value,
    ),
    *span("created", "created_at", "Brought in"),
)


class Prompts(Endpoint):
    parser_classes = (RecordListParser, RecordLinesParser, CsvParser, ParquetParser)

    @extend_schema(
        operation_id="list_prompts", parameters=[*page_parameters(ORDERS), *parameters(FILTERS)], responses=PromptPage
    )
    def get(self, request: Request, slug: str) -> Answer:
        """Prompts with their responses, for reviewers, managers and engineers: it names the models."""
        project = get_project_for_data(request.user, slug, role=Role.REVIEWER)
        prompts = filtered(prompts_of(project), request, FILTERS)
        return Answer(page_of(prompts, request, lambda rows: [prompt_content(row) for row in rows], orders=ORDERS))

    @extend_schema(
        operation_id="import_prompts",
        parameters=IMPORT_PARAMETERS,
        request={
            "application/json": RecordsShape,
            "application/x-ndjson": bytes,
            CsvParser.media_type: bytes,
            ParquetParser.media_type: bytes,
        },
        responses={200: ImportAnswer},
    )
    @idempotent_once_finished
    def post(self, request: Request, slug: str) -> Answer:
        """Takes in records of a format. Bad ones are reported with line and reason, the others written; doing it again
        changes nothing. A body that cannot be read to its end changes nothing either."""
        project = get_project_for_data(request.user, slug, role=Role.MANAGER)
        options = _options(request)
        kind = one_of(request, "format", list(FORMATS), default=_BY_MEDIA_TYPE.get(_media_type(request), "plackett"))
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


#: A table says what it is.
_BY_MEDIA_TYPE = {CsvParser.media_type: "csv", ParquetParser.media_type: "parquet"}


def _media_type(request: Request) -> str:
    return (request.content_type or "").partition(";")[0].strip().lower()


def _options(request: Request) -> dict[str, Any]:
    priority = whole_number(request, "priority", high=max(RankingTask.Priority.values))
    return {
        "overlap": whole_number(request, "overlap", high=50),
        "priority": RankingTask.Priority.NORMAL if priority is None else priority,
        "strict": yes_or_no(request, "strict"),
        "dry_run": yes_or_no(request, "dry_run"),
        "mapping": _mapping(request),
    }


def _mapping(request: Request) -> dict[str, str]:
    try:
        return mapping_from(request.query_params.getlist("map"))
    except MappingError as error:
        raise ValidationError({"map": [f"{error}."]}) from None


def _body(request: Request) -> Any:
    body = request.data
    if not hasattr(body, "read"):
        raise ParseError("The body is empty.")
    return body
