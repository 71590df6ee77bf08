"""The members of a project, for its managers."""

from django.db.models import F, QuerySet

from annotate.errors import NotFound
from annotate.models import Membership, Project, User


def members_of(project: Project) -> QuerySet[Membership]:
    """Every member, deactivated ones last, with their users."""
    members = Membership.objects.filter(project=project).select_related("user", "project")
    return members.order_by(F("deactivated_at").asc(nulls_first=True), "user__username")


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
