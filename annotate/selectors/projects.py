"""Who may see and do what. These getters fetch and authorise in one query; pages and API go through them."""

from collections.abc import Iterable

from django.contrib.auth.models import AnonymousUser
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from annotate.errors import Forbidden, NotFound
from annotate.models import Membership, Project, ProjectVersion, Role, User
from annotate.prepared import Columns, prepared_cursor

RANK = {role: rank for rank, role in enumerate(Role.values)}


def projects_of(user: User | AnonymousUser) -> QuerySet[Project]:
    """Projects the user is a member of; superusers see all."""
    if not user.is_authenticated:
        return Project.objects.none()
    if user.is_superuser:
        return Project.objects.order_by("name")
    return Project.objects.filter(memberships__user=user, memberships__deactivated_at=None).order_by("name")


def memberships_of(*, user: User, projects: Iterable[Project]) -> dict[int, Membership]:
    """As membership_of, for several of the user's projects in one query, by project id; others are left out."""
    wanted = list(projects)
    mine = Membership.objects.filter(user=user, project__in=wanted, deactivated_at=None)
    found = {membership.project_id: membership for membership in mine}
    if user.is_superuser:
        return {project.pk: _superusers(found.get(project.pk), user=user, project=project) for project in wanted}
    return found


def membership_of(*, user: User, project: Project) -> Membership:
    """The user's membership; a superuser without one counts as manager and engineer (the row is not saved).

    Raises:
        NotFound: the user is no member.
    """
    found = Membership.objects.filter(user=user, project=project, deactivated_at=None).first()
    if user.is_superuser:
        return _superusers(found, user=user, project=project)
    if found is None:
        raise NotFound(_("There is no such project."))
    return found


def _superusers(found: Membership | None, *, user: User, project: Project) -> Membership:
    weight = found.weight if found else 1.0
    return Membership(user=user, project=project, role=Role.MANAGER, engineer=True, weight=weight)


def get_project_for(
    user: User | AnonymousUser, slug: str, *, role: Role = Role.VIEWER, engineer: bool = False
) -> Project:
    """The project, if the user has at least this role in it (and, if asked, is an engineer).

    Raises:
        NotFound: no such project, or the user is an outsider; who wants to rank and was deactivated is told so (code
            `not_a_member`).
        Forbidden: a member without the right.
    """
    membership = _membership_in(slug, user=user)
    if membership is None:
        if role == Role.ANNOTATOR:
            _refuse_deactivated(user, slug)
        raise NotFound(_("There is no such project."))
    if RANK[membership.role] < RANK[role]:
        words = _("This needs the role %(role)s in the project; yours is %(own)s.")
        raise Forbidden(words % {"role": role.in_words, "own": Role(membership.role).in_words})
    if engineer and not membership.engineer:
        raise Forbidden(_("This needs the engineer right in the project; a manager can give it."))
    return membership.project


def _refuse_deactivated(user: User | AnonymousUser, slug: str) -> None:
    """For whoever was in the middle of a ranking: they knew the project, so this tells them nothing new."""
    if Membership.objects.filter(user=user.pk, project__slug=slug, deactivated_at__isnull=False).exists():
        words = _(
            "You no longer have access to this project; ask its manager. What you did here is kept in this browser."
        )
        raise NotFound(words, code="not_a_member")


def _membership_in(slug: str, *, user: User | AnonymousUser) -> Membership | None:
    """The user's membership with its project, in one query for whoever is no superuser."""
    if not user.is_superuser:
        return _own_membership_in(slug, user=user)
    project = Project.objects.filter(slug=slug).first()
    return membership_of(user=user, project=project) if project else None


_MEMBERSHIP = Columns(Membership, "membership")
_PROJECT = Columns(Project, "project")
_OWN = f"""
    SELECT {_MEMBERSHIP.sql}, {_PROJECT.sql} FROM annotate_membership membership
    JOIN annotate_project project ON project.id = membership.project_id
    WHERE membership.user_id = %s AND project.slug = %s AND membership.deactivated_at IS NULL
"""


def _own_membership_in(slug: str, *, user: User | AnonymousUser) -> Membership | None:
    with prepared_cursor() as cursor:
        cursor.execute(_OWN, [user.pk, slug])
        found = cursor.fetchone()
    if found is None:
        return None
    membership = _MEMBERSHIP.row(found[: len(_MEMBERSHIP)])
    membership.project = _PROJECT.row(found[len(_MEMBERSHIP) :])
    return membership


def current_version(project: Project) -> ProjectVersion:
    """The rules now in force. Every project has at least version 1 (services.projects.create_project)."""
    return ProjectVersion.objects.filter(project=project).order_by("-number")[:1].get()
