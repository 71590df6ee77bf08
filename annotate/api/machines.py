"""Machine annotators of a project: made, changed, given a new token, sent away."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.base import Endpoint, asking
from annotate.api.filters import filtered, parameters, yes
from annotate.api.idempotency import idempotent_but
from annotate.api.pagination import PAGE_PARAMETERS, page_of
from annotate.api.shapes.base import Shape
from annotate.models import Membership, Role
from annotate.selectors.people import get_machine_for, machines_among, machines_in
from annotate.selectors.projects import get_project_for
from annotate.services.machines import (
    MOST_OPEN_LEASES,
    OPEN_LEASES,
    change_machine,
    create_machine,
    dismiss_machine,
    renew_machine_token,
)
from annotate.services.members import MAX_WEIGHT, reactivate_member

FILTERS = (
    yes("active", "deactivated_at__isnull", "1: only those that may rank; 0: only those sent away."),
    yes("fills_places", "fills_places", "1: only those that fill people's places; 0: only the others."),
)
_LIMIT = {"min_value": 1, "max_value": MOST_OPEN_LEASES, "help_text": "Tasks it may hold at once."}
_PLACES = "Its rankings fill places that people would fill; otherwise it ranks beside them."


class MachineShape(Shape):
    """A machine to make."""

    name = serializers.CharField(
        max_length=60, help_text="Small letters, digits, full stops, hyphens and underscores; part of its user name."
    )
    open_lease_limit = serializers.IntegerField(default=OPEN_LEASES, **_LIMIT)  # type: ignore[arg-type]
    fills_places = serializers.BooleanField(default=False, help_text=_PLACES)


class MachineChangeShape(Shape):
    """What is not sent stays."""

    open_lease_limit = serializers.IntegerField(required=False, **_LIMIT)  # type: ignore[arg-type]
    fills_places = serializers.BooleanField(required=False, help_text=_PLACES)
    weight = serializers.FloatField(
        required=False, min_value=0, max_value=MAX_WEIGHT, help_text="Of its rankings in training; 1 is usual."
    )


class MachineAnswer(serializers.Serializer[Any]):
    """A machine. Its token is told once, when it is made."""

    id = serializers.IntegerField()
    username = serializers.CharField()
    open_lease_limit = serializers.IntegerField()
    fills_places = serializers.BooleanField(help_text=_PLACES)
    weight = serializers.FloatField(help_text="Of its rankings in training.")
    rankings = serializers.IntegerField(help_text="Made in all.")
    open = serializers.IntegerField(help_text="Tasks it holds.")
    created_at = serializers.DateTimeField()
    deactivated_at = serializers.DateTimeField(allow_null=True, help_text="Since then it may do nothing here.")


class MachineTokenAnswer(MachineAnswer):
    """The same with its token, this once."""

    token = serializers.CharField(
        allow_null=True, help_text="null where a request is repeated under its Idempotency-Key: it is not kept."
    )


class MachinePage(serializers.Serializer[Any]):
    next = serializers.CharField(allow_null=True)
    results = MachineAnswer(many=True)


class Machines(Endpoint):
    tells_secrets = True

    @extend_schema(
        operation_id="list_machines", parameters=[*PAGE_PARAMETERS, *parameters(FILTERS)], responses=MachinePage
    )
    def get(self, request: Request, slug: str) -> Response:
        """The project's machines, those sent away too, without their tokens."""
        project = get_project_for(request.user, slug, role=Role.MANAGER)
        return Response(page_of(filtered(machines_in(project), request, FILTERS), request, _contents))

    @extend_schema(operation_id="create_machine", request=MachineShape, responses={201: MachineTokenAnswer})
    @idempotent_but("token")
    def post(self, request: Request, slug: str) -> Response:
        """Makes an account that nobody can log in to, and tells the token with which it ranks, this once."""
        project = get_project_for(request.user, slug, role=Role.MANAGER)
        shape = MachineShape(data=request.data)
        shape.is_valid(raise_exception=True)
        made, token = create_machine(project=project, by=asking(request), **shape.validated_data)
        return Response(_content(made) | {"token": token}, status=201)


class OneMachine(Endpoint):
    @extend_schema(operation_id="read_machine", responses=MachineAnswer)
    def get(self, request: Request, slug: str, machine: int) -> Response:
        """A machine, without its token."""
        return Response(_content(get_machine_for(request.user, slug, machine)))

    @extend_schema(operation_id="change_machine", request=MachineChangeShape, responses=MachineAnswer)
    def patch(self, request: Request, slug: str, machine: int) -> Response:
        """Changes what is sent: how much it may hold, where its rankings go from now on, what they weigh."""
        found = get_machine_for(request.user, slug, machine)
        shape = MachineChangeShape(data=request.data)
        shape.is_valid(raise_exception=True)
        now = {name: _content(found)[name] for name in ("open_lease_limit", "fills_places", "weight")}
        changed = change_machine(membership=found, by=asking(request), **now | shape.validated_data)
        return Response(_content(changed))

    @extend_schema(operation_id="delete_machine", responses={204: None})
    def delete(self, request: Request, slug: str, machine: int) -> Response:
        """Ends its token and gives back what it holds; its rankings stay. Repeating it is harmless."""
        dismiss_machine(membership=get_machine_for(request.user, slug, machine), by=asking(request))
        return Response(status=204)


class MachineToken(Endpoint):
    tells_secrets = True

    @extend_schema(operation_id="renew_machine_token", request=None, responses={201: MachineTokenAnswer})
    @idempotent_but("token")
    def post(self, request: Request, slug: str, machine: int) -> Response:
        """Makes a new token and tells it, this once; the one before stops working. Brings back one sent away."""
        found = get_machine_for(request.user, slug, machine)
        reactivate_member(membership=found, by=asking(request))
        token = renew_machine_token(membership=found, by=asking(request))
        return Response(_content(get_machine_for(request.user, slug, machine)) | {"token": token}, status=201)


def _contents(rows: list[Membership]) -> list[dict[str, Any]]:
    return [
        {
            "id": one.pk,
            "username": one.user.username,
            "open_lease_limit": one.open_lease_limit or one.project.open_lease_limit,
            "rankings": one.rankings,
            "open": one.open,
            **{name: getattr(one, name) for name in ("fills_places", "weight", "created_at", "deactivated_at")},
        }
        for one in machines_among(rows)
    ]


def _content(machine: Membership) -> dict[str, Any]:
    """What MachineAnswer describes."""
    return _contents([machine])[0]
