"""The annotator's loop: take the next task, stay on it, hand it back, pass it on, keep a draft."""

import uuid

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.authentication import Scope
from annotate.api.base import Endpoint, asking
from annotate.api.idempotency import idempotent
from annotate.api.shapes.leases import (
    DraftAnswer,
    DraftShape,
    FlagTaskShape,
    LeasesAnswer,
    LeaseTimeAnswer,
    NextShape,
    SkipShape,
)
from annotate.models import Role
from annotate.selectors.access import get_lease_for
from annotate.selectors.projects import get_project_for
from annotate.services.drafts import save_draft
from annotate.services.queue import extend_lease, next_unseen_leases, release_lease
from annotate.services.skips import flag_task, skip_task


class Next(Endpoint):
    required_scope = Scope.ANNOTATE

    @extend_schema(operation_id="next_leases", request=NextShape, responses=LeasesAnswer)
    def post(self, request: Request, slug: str) -> Response:
        """The caller's open leases first, then new ones, up to `count` in all. Repeating it is harmless.

        A closed project hands out the open ones alone, with `closed`; 409 `project_closed` if there are none.
        """
        user = asking(request)
        project = get_project_for(user, slug, role=Role.ANNOTATOR)
        shape = NextShape(data=request.data)
        shape.is_valid(raise_exception=True)
        _, leases = next_unseen_leases(project=project, annotator=user, count=shape.validated_data["count"], have=())
        return Response({"leases": leases} | ({"closed": True} if project.archived_at is not None else {}))


class Extend(Endpoint):
    required_scope = Scope.ANNOTATE

    @extend_schema(operation_id="extend_lease", request=None, responses=LeaseTimeAnswer)
    def post(self, request: Request, lease: uuid.UUID) -> Response:
        """A sign of life: the lease gets its full time again."""
        found = get_lease_for(request.user, lease)
        slot = extend_lease(lease_id=found.pk, annotator=asking(request))
        return Response({"id": str(found.pk), "expires_at": slot.expires_at})


class Release(Endpoint):
    required_scope = Scope.ANNOTATE

    @extend_schema(operation_id="release_lease", request=None, responses={204: None})
    @idempotent
    def post(self, request: Request, lease: uuid.UUID) -> Response:
        """Hands the task back unranked. It may come to the same person again."""
        found = get_lease_for(request.user, lease)
        release_lease(lease_id=found.pk, annotator=asking(request))
        return Response(status=204)


class SkipTask(Endpoint):
    required_scope = Scope.ANNOTATE

    @extend_schema(operation_id="skip_task", request=SkipShape, responses={204: None})
    @idempotent
    def post(self, request: Request, lease: uuid.UUID) -> Response:
        """Passes the task on for good: it is never offered to the caller again."""
        found = get_lease_for(request.user, lease)
        shape = SkipShape(data=request.data)
        shape.is_valid(raise_exception=True)
        skip_task(lease_id=found.pk, annotator=asking(request), **shape.validated_data)
        return Response(status=204)


class FlagTask(Endpoint):
    required_scope = Scope.ANNOTATE

    @extend_schema(operation_id="flag_task", request=FlagTaskShape, responses={204: None})
    @idempotent
    def post(self, request: Request, lease: uuid.UUID) -> Response:
        """Asks the manager to look at the task; the caller keeps it. `unsafe` keeps it from everybody else at once."""
        found = get_lease_for(request.user, lease)
        shape = FlagTaskShape(data=request.data)
        shape.is_valid(raise_exception=True)
        flag_task(lease_id=found.pk, annotator=asking(request), **shape.validated_data)
        return Response(status=204)


class DraftOfLease(Endpoint):
    required_scope = Scope.ANNOTATE
    http_method_names = ["put", "options"]

    @extend_schema(operation_id="save_draft", request=DraftShape, responses=DraftAnswer)
    def put(self, request: Request, lease: uuid.UUID) -> Response:
        """Keeps what is arranged so far. A version that is not the last is 409, with the last draft in `extra`."""
        found = get_lease_for(request.user, lease)
        shape = DraftShape(data=request.data)
        shape.is_valid(raise_exception=True)
        draft = save_draft(
            lease_id=found.pk,
            annotator=asking(request),
            seen_version=shape.validated_data["version"],
            body=shape.validated_data["body"],
        )
        return Response({"version": draft.version})
