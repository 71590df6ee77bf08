"""The members of a project, for its managers."""

from typing import Any

from django.db.models import Count, F, QuerySet

from annotate.errors import NotFound
from annotate.models import Membership, Project, Ranking, Slot, User


def members_of(project: Project) -> QuerySet[Membership]:
    """Every member, deactivated ones last, with their users."""
    members = Membership.objects.filter(project=project).select_related("user", "project")
    return members.order_by(F("deactivated_at").asc(nulls_first=True), "user__username")


def machines_of(project: Project) -> list[Any]:
    """The machines that rank here by the API, each with `rankings` made in all and `open`, the tasks it holds."""
    found = list(members_of(project).filter(user__kind=User.Kind.MACHINE))
    users = [one.user_id for one in found]
    made = Ranking.objects.filter(project=project, annotator__in=users, revision=1).values_list("annotator")
    held = Slot.objects.filter(project=project, holder__in=users, state=Slot.State.LEASED).values_list("holder")
    rankings, leases = dict(made.annotate(Count("pk"))), dict(held.annotate(Count("pk")))
    for one in found:
        shown: Any = one
        shown.rankings, shown.open = rankings.get(one.user_id, 0), leases.get(one.user_id, 0)
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
