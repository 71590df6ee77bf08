"""The members of a project, for its managers."""

from typing import Any

from django.db.models import Count, F, QuerySet
from django.utils.translation import gettext as _

from annotate.errors import NotFound
from annotate.models import Membership, Project, Ranking, Role, Slot, User
from annotate.selectors.access import Someone
from annotate.selectors.projects import get_project_for


def members_of(project: Project) -> QuerySet[Membership]:
    """Every member, deactivated ones last, with their users."""
    members = Membership.objects.filter(project=project).select_related("user", "project")
    return members.order_by(F("deactivated_at").asc(nulls_first=True), "user__username")


def machines_in(project: Project) -> QuerySet[Membership]:
    """The machines that rank here by the API, deactivated ones last."""
    return members_of(project).filter(user__kind=User.Kind.MACHINE)


def machines_of(project: Project) -> list[Any]:
    """The same, each with `rankings` made in all and `open`, the tasks it holds."""
    return machines_among(list(machines_in(project)))


def machines_among(found: list[Membership]) -> list[Any]:
    """These machines of one project, each with `rankings` and `open`."""
    users = [one.user_id for one in found]
    projects = {one.project_id for one in found}
    made = Ranking.objects.filter(project__in=projects, annotator__in=users, revision=1).values_list("annotator")
    held = Slot.objects.filter(project__in=projects, holder__in=users, state=Slot.State.LEASED).values_list("holder")
    rankings, leases = dict(made.annotate(Count("pk"))), dict(held.annotate(Count("pk")))
    for one in found:
        shown: Any = one
        shown.rankings, shown.open = rankings.get(one.user_id, 0), leases.get(one.user_id, 0)
    return found


def get_machine_for(user: Someone, slug: str, machine_id: int) -> Membership:
    """A machine of a project that the user manages.

    Raises:
        NotFound, Forbidden: as get_project_for; or the project has no such machine.
    """
    project = get_project_for(user, slug, role=Role.MANAGER)
    found = machines_in(project).filter(pk=machine_id).first()
    if found is None:
        raise NotFound(_("There is no such machine."))
    return found


def is_member(*, project: Project, user: User) -> bool:
    """Whether the user is an active member; a superuser without a membership is none."""
    return Membership.objects.filter(project=project, user=user, deactivated_at=None).exists()


def get_member(project: Project, member_id: int) -> Membership:
    """A member of this project, active or not.

    Raises:
        NotFound: the project has no such member.
    """
    found = members_of(project).filter(pk=member_id).first()
    if found is None:
        raise NotFound("There is no such member.")
    return found
