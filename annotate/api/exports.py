"""Rankings out, as a stream of lines."""

import threading
from collections.abc import Callable, Iterator

from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.exceptions import Throttled
from rest_framework.request import Request

from annotate.api.base import Endpoint
from annotate.api.queries import one_of
from annotate.api.sending import packed_stream
from annotate.interchange.exporting import MEDIA_TYPES
from annotate.interchange.options import NAMES, OPTIONS
from annotate.selectors.projects import get_project_for
from annotate.services.exports import FORMATS, Export, open_export

AT_ONCE = 2
RETRY_SECONDS = 5
BLOCK_BYTES = 1 << 16

OPTION_PARAMETERS = [
    OpenApiParameter(
        option.name, str, enum=option.values or None, default=option.default or None, description=option.about
    )
    for option in OPTIONS
]

_room = threading.BoundedSemaphore(AT_ONCE)


class Exports(Endpoint):
    @extend_schema(
        operation_id="export",
        parameters=[
            OpenApiParameter("format", str, enum=FORMATS, default="plackett"),
            OpenApiParameter("since", str, description="`Plackett-Cursor` of the export before: only what is new."),
            *OPTION_PARAMETERS,
            OpenApiParameter("Plackett-Cursor", str, "header", response=[200], description="Fixed at the start."),
            OpenApiParameter("Plackett-Count", int, "header", response=[200], description="Lines to come."),
        ],
        responses={
            (200, MEDIA_TYPES["jsonl"]): OpenApiResponse(OpenApiTypes.STR, description="One JSON object a line."),
            (200, MEDIA_TYPES["csv"]): OpenApiResponse(OpenApiTypes.STR, description="Names, then one row a line."),
            (200, MEDIA_TYPES["parquet"]): OpenApiResponse(OpenApiTypes.BINARY, description="A Parquet file."),
        },
    )
    def get(self, request: Request, slug: str) -> HttpResponseBase:
        """The project's rankings, one line each (or one line a pair), in the format asked for.

        A stream that breaks is cut off, never ended.
        """
        project = get_project_for(request.user, slug, engineer=True)
        kind = one_of(request, "format", list(FORMATS), default="plackett")
        options = {name: text for name in NAMES if (text := request.query_params.get(name)) is not None}
        if not _room.acquire(blocking=False):
            raise Throttled(wait=RETRY_SECONDS, detail=f"This process is writing {AT_ONCE} exports; ask again.")
        try:
            export = open_export(project, format=kind, since=request.query_params.get("since"), options=options)
            lines = ReleasedStream(in_blocks(export.lines), release=_room.release)
        except BaseException:
            _room.release()
            raise
        return _answer(request, export, lines, name=f"{project.slug}-{kind}")


def _answer(request: Request, export: Export, lines: "ReleasedStream", *, name: str) -> HttpResponseBase:
    headers = {
        "Plackett-Cursor": export.cursor,
        "Plackett-Count": str(export.count),
        "Content-Disposition": f'attachment; filename="{name}.{export.extension}"',
        "Cache-Control": "no-store",
    }
    if request.method == "HEAD":
        lines.close()
        return HttpResponse(content_type=export.media_type, headers=headers)
    answer = StreamingHttpResponse(lines, content_type=export.media_type, headers=headers)
    # A Parquet file is compressed in itself.
    return answer if export.extension == "parquet" else packed_stream(answer, request)


def in_blocks(lines: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in blocks of at least 64 KiB, so that a small line does not cost a system call of its own.

    What the lines raise is raised here too, and nothing of the unfinished block is sent. The server then closes the
    connection without the chunk that ends a whole stream, which every HTTP/1.1 client reports as an error.
    """
    block: list[bytes] = []
    size = 0
    for line in lines:
        block.append(line)
        size += len(line)
        if size >= BLOCK_BYTES:
            yield b"".join(block)
            block, size = [], 0
    if block:
        yield b"".join(block)


class ReleasedStream:
    """An iterator that gives its place back when it is closed, also if nobody ever read from it.

    (A generator's `finally` does not run if the generator was never started.)
    """

    def __init__(self, blocks: Iterator[bytes], *, release: Callable[[], None]) -> None:
        self._blocks = blocks
        self._release = release
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._blocks)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._release()
