"""Snapshots: freeze, list, download."""

import re
from collections.abc import Iterator
from typing import BinaryIO, cast

from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.base import Endpoint, asking
from annotate.api.errors import error_body
from annotate.api.filters import filtered, parameters, span, word
from annotate.api.idempotency import idempotent
from annotate.api.pagination import page_of, page_parameters
from annotate.api.shapes.snapshots import FreezeShape, SnapshotAnswer, SnapshotPage
from annotate.models import Snapshot
from annotate.selectors.access import get_snapshot_for
from annotate.selectors.projects import get_project_for
from annotate.services.snapshots import freeze_snapshot, manifest_of, open_snapshot

NDJSON = "application/x-ndjson"
BLOCK_BYTES = 1 << 16
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


ORDERS = {"id": "pk", "created_at": "created_at", "size_bytes": "size_bytes"}
FILTERS = (
    word("state", "state", Snapshot.State.values, "Only in this state."),
    *span("created", "created_at", "Frozen"),
)


class Snapshots(Endpoint):
    @extend_schema(
        operation_id="list_snapshots",
        parameters=[*page_parameters(ORDERS), *parameters(FILTERS)],
        responses=SnapshotPage,
    )
    def get(self, request: Request, slug: str) -> Response:
        """The project's snapshots with their manifests, oldest first."""
        project = get_project_for(request.user, slug, engineer=True)
        snapshots = filtered(Snapshot.objects.filter(project=project).select_related("project"), request, FILTERS)
        return Response(page_of(snapshots, request, lambda rows: [manifest_of(row) for row in rows], orders=ORDERS))

    @extend_schema(operation_id="freeze_snapshot", request=FreezeShape, responses={201: SnapshotAnswer})
    @idempotent
    def post(self, request: Request, slug: str) -> Response:
        """Writes what the filters choose into a file that never changes, and answers with its manifest."""
        project = get_project_for(request.user, slug, engineer=True)
        shape = FreezeShape(data=request.data)
        shape.is_valid(raise_exception=True)
        snapshot = freeze_snapshot(project=project, created_by=asking(request), **shape.validated_data)
        return Response(manifest_of(snapshot), status=201)


class SnapshotFile(Endpoint):
    @extend_schema(
        operation_id="download_snapshot",
        parameters=[
            OpenApiParameter("Range", str, "header", description="One range of bytes, to go on where it broke off."),
            OpenApiParameter("If-None-Match", str, "header", description="The ETag you have: 304 if it is the same."),
            OpenApiParameter("ETag", str, "header", response=[200, 206], description="The file's sha256, in quotes."),
        ],
        responses={
            (200, NDJSON): OpenApiResponse(OpenApiTypes.STR, description="The whole file."),
            (206, NDJSON): OpenApiResponse(OpenApiTypes.STR, description="The range asked for."),
            304: OpenApiResponse(description="You have it already."),
        },
    )
    def get(self, request: Request, snapshot: int) -> HttpResponseBase:
        """The file: the same bytes every time, as long as nothing in it had to be withdrawn."""
        found = get_snapshot_for(request.user, snapshot)
        etag = f'"{found.sha256}"'
        headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
        file = cast(BinaryIO, open_snapshot(found))
        if _names(request.headers.get("If-None-Match", ""), etag):
            file.close()
            return HttpResponse(status=304, headers=headers)
        if (part := asked_range(request, etag=etag, size=found.size_bytes)) is None:
            return _bytes(request, file, range(found.size_bytes), headers | _attachment(found), status=200)
        if not part:
            file.close()
            body = error_body("range_not_satisfiable", f"The file has {found.size_bytes} bytes.")
            return Response(body, status=416, headers=headers | {"Content-Range": f"bytes */{found.size_bytes}"})
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{found.size_bytes}"
        return _bytes(request, file, part, headers | _attachment(found), status=206)


def _attachment(snapshot: Snapshot) -> dict[str, str]:
    name = f"{snapshot.project.slug}-snapshot-{snapshot.pk}.jsonl"
    return {"Content-Disposition": f'attachment; filename="{name}"'}


def _names(header: str, etag: str) -> bool:
    return any(tag.strip().removeprefix("W/") in {etag, "*"} for tag in header.split(","))


def asked_range(request: Request, *, etag: str, size: int) -> range | None:
    """The bytes that the request wants; None for all of them, an empty range for what does not exist.

    As HTTP has it, several ranges, another unit, or an If-Range that names another file give the whole.
    """
    asked = _RANGE.fullmatch(request.headers.get("Range", "").replace(" ", ""))
    if asked is None or not any(asked.groups()) or request.headers.get("If-Range", etag) != etag:
        return None
    first, last = asked.groups()
    if not first:
        return range(max(size - int(last), 0), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, size) if last else size)


def _bytes(request: Request, file: BinaryIO, part: range, headers: dict[str, str], *, status: int) -> HttpResponseBase:
    headers["Content-Length"] = str(len(part))
    if request.method == "HEAD":
        file.close()
        return HttpResponse(status=status, content_type=NDJSON, headers=headers)
    return StreamingHttpResponse(_Blocks(file, part), status=status, content_type=NDJSON, headers=headers)


class _Blocks:
    """A part of a file, block by block; closed with the answer, also if nobody ever read it."""

    def __init__(self, file: BinaryIO, part: range) -> None:
        self._file = file
        self._left = len(part)
        file.seek(part.start)

    def __iter__(self) -> Iterator[bytes]:
        while self._left and (block := self._file.read(min(BLOCK_BYTES, self._left))):
            self._left -= len(block)
            yield block

    def close(self) -> None:
        self._file.close()
