"""Getters for things inside a project: each fetches and authorises together, like get_project_for.

Whoever is no member of the thing's project learns nothing of it (404); a member without the right is told so (403);
what belongs to one person is nobody else's (404).
"""

import uuid
from typing import cast

from django.contrib.auth.models import AnonymousUser
from django.utils.translation import gettext as _

from annotate.errors import Forbidden, NotFound
from annotate.models import Lease, Project, Prompt, Ranking, Role, Snapshot, User
from annotate.selectors.projects import RANK, get_project_for, membership_of

Someone = User | AnonymousUser


def may_create_projects(user: Someone) -> bool:
    """Superusers, and whoever an administrator gave the permission `annotate.add_project`."""
    return user.has_perm("annotate.add_project")


def get_project_for_data(user: Someone, slug: str, *, role: Role) -> Project:
    """The project, if the user has at least this role in it or is an engineer of it.

    Raises:
        NotFound, Forbidden: as get_project_for.
    """
    project = get_project_for(user, slug)
    membership = membership_of(user=cast(User, user), project=project)
    if RANK[membership.role] < RANK[role] and not membership.engineer:
        words = _("This needs the role %(role)s or the engineer right in the project.")
        raise Forbidden(words % {"role": role.in_words})
    return project


def get_lease_for(user: Someone, lease_id: uuid.UUID) -> Lease:
    """The caller's own lease, with its task and project, while they may still rank there.

    Raises:
        NotFound: no such lease, somebody else's, or in a project that is none of the caller's business; the caller's
            own in a project that they were deactivated in (code `not_a_member`).
        Forbidden: a member who may not rank.
    """
    lease = Lease.objects.select_related("task__project").filter(pk=lease_id).first()
    if lease is None:
        raise NotFound(_("There is no such lease."))
    own = lease.annotator_id == user.pk
    _may_rank(user, lease.task.project, own=own, otherwise=_("There is no such lease."))
    if not own:
        raise NotFound(_("There is no such lease."))
    return lease


def get_ranking_for(user: Someone, ranking_id: int) -> Ranking:
    """The caller's own ranking, while they may still rank in its project.

    Raises:
        NotFound, Forbidden: as get_lease_for.
    """
    ranking = Ranking.objects.select_related("project").filter(pk=ranking_id).first()
    if ranking is None:
        raise NotFound(_("There is no such ranking."))
    own = ranking.annotator_id == user.pk
    _may_rank(user, ranking.project, own=own, otherwise=_("There is no such ranking."))
    if not own:
        raise NotFound(_("There is no such ranking."))
    return ranking


def get_anyones_ranking_for(user: Someone, ranking_id: int, *, role: Role) -> Ranking:
    """Anybody's ranking, with annotator and task, in a project in which the caller has at least this role.

    Raises:
        NotFound: no such ranking, or none of the caller's business.
        Forbidden: a member without the role.
    """
    rankings = Ranking.objects.select_related("project", "annotator", "task")
    ranking = rankings.filter(pk=ranking_id).first()
    if ranking is None:
        raise NotFound(_("There is no such ranking."))
    try:
        get_project_for(user, ranking.project.slug, role=role)
    except NotFound:
        raise NotFound(_("There is no such ranking.")) from None
    return ranking


def get_prompt_for(user: Someone, prompt_id: int, *, role: Role) -> Prompt:
    """A prompt of a project in which the caller has at least this role.

    Raises:
        NotFound: no such prompt, or none of the caller's business.
        Forbidden: a member without the role.
    """
    prompt = Prompt.objects.select_related("project").filter(pk=prompt_id).first()
    if prompt is None:
        raise NotFound(_("There is no such prompt."))
    try:
        get_project_for(user, prompt.project.slug, role=role)
    except NotFound:
        raise NotFound(_("There is no such prompt.")) from None
    return prompt


def _may_rank(user: Someone, project: Project, *, own: bool, otherwise: str) -> None:
    try:
        get_project_for(user, project.slug, role=Role.ANNOTATOR)
    except NotFound as refused:
        if own and refused.code == "not_a_member":
            raise
        raise NotFound(otherwise) from None


def get_snapshot_for(user: Someone, snapshot_id: int) -> Snapshot:
    """A snapshot whose texts the caller may have: an engineer of its project.

    Raises:
        NotFound: no such snapshot, or none of the caller's business.
        Forbidden: a member who is no engineer.
    """
    snapshot = Snapshot.objects.select_related("project").filter(pk=snapshot_id).first()
    if snapshot is None:
        raise NotFound(_("There is no such snapshot."))
    try:
        get_project_for(user, snapshot.project.slug, engineer=True)
    except NotFound:
        raise NotFound(_("There is no such snapshot.")) from None
    return snapshot
