"""A run's measurements as a TensorBoard event file, made from the database, which the web has at hand."""

import threading
from collections.abc import Iterator

from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.exceptions import Throttled
from rest_framework.request import Request

from annotate.api.base import Endpoint, asking
from annotate.api.exports import ReleasedStream, in_blocks
from training.core.event_files import scalars_event, start_events
from training.models import Run
from training.selectors import get_run_for, metrics_since

BINARY = "application/octet-stream"
AT_ONCE = 2
RETRY_SECONDS = 5
ROWS_AT_ONCE = 1000

_room = threading.BoundedSemaphore(AT_ONCE)


class EventFile(Endpoint):
    @extend_schema(
        operation_id="download_run_tensorboard",
        responses={(200, BINARY): OpenApiResponse(OpenApiTypes.BINARY, description="An event file.")},
    )
    def get(self, request: Request, run: int) -> HttpResponseBase:
        """What was measured, each step once, as an event file: put it into a folder, `tensorboard --logdir FOLDER`."""
        found = get_run_for(asking(request), run)
        name = f"events.out.tfevents.{int(found.created_at.timestamp()):010d}.run-{found.pk}"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-store"}
        if request.method == "HEAD":
            return HttpResponse(content_type=BINARY, headers=headers)
        if not _room.acquire(blocking=False):
            raise Throttled(wait=RETRY_SECONDS, detail=f"This process is writing {AT_ONCE} event files; ask again.")
        blocks = ReleasedStream(in_blocks(_events(found)), release=_room.release)
        return StreamingHttpResponse(blocks, content_type=BINARY, headers=headers)


def _events(run: Run) -> Iterator[bytes]:
    """The records of the file; rows are read in short transactions, by their steps."""
    yield start_events(1, attempt=run.attempt, at=(run.started_at or run.created_at).timestamp())
    last, more = 0, True
    while more:
        answer = metrics_since(run, since_step=last, seen_attempt=None, limit=ROWS_AT_ONCE)
        for row in answer.rows:
            values = {name: float(value) for name, value in row.values.items() if value is not None}
            yield scalars_event(row.step, values, at=row.recorded_at.timestamp())
            last = row.step
        more = answer.more
