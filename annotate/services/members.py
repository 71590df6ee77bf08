"""What a manager does about the people of a project. Members are deactivated, never removed: their rankings stay."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from annotate.errors import Conflict, Forbidden, Invalid, NotFound
from annotate.models import Membership, OneTimeLink, Project, Role, Slot, User
from annotate.selectors.projects import RANK, membership_of
from annotate.services import links
from annotate.services.locks import lock_members
from annotate.services.queue import one_call_at_a_time, release_lease
from annotate.services.tokens import revoke_tokens_of

PASSWORD_LIFETIME = timedelta(hours=24)
PASSWORD = OneTimeLink.Kind.PASSWORD
MAX_WEIGHT = 100


@transaction.atomic
def change_member(*, membership: Membership, by: User, role: str, engineer: bool, weight: float) -> Membership:
    """Sets what a member may do and how much their rankings weigh in training. Locks the project's members.

    Raises:
        Invalid: an unknown role, or a weight outside 0 to 100.
        Forbidden: `by` is no manager, or gives the engineer right without having it.
        Conflict: the project would be left without a manager (`last_manager`).
    """
    member = _locked(membership)
    own = _rights(project=member.project, by=by)
    _refuse_nonsense(role=role, weight=weight)
    if engineer and not member.engineer and not own.engineer:
        raise Forbidden(_("Only an engineer can give the engineer right."))
    if role != Role.MANAGER:
        _refuse_last_manager(member, by=by)
    Membership.objects.filter(pk=member.pk).update(role=role, engineer=engineer, weight=weight)
    member.refresh_from_db()
    return member


@transaction.atomic
def deactivate_member(*, membership: Membership, by: User) -> int:
    """The person counts as an outsider from now on; open leases return to the queue, rankings stay.

    Locks the project's members and the person's own queue; writes the membership and the slots. Returns how many leases
    there were. Doing it again changes nothing.

    Raises:
        Forbidden: `by` is no manager.
        Conflict: the project would be left without a manager (`last_manager`).
    """
    member = _locked(membership)
    _rights(project=member.project, by=by)
    _refuse_last_manager(member, by=by)
    Membership.objects.filter(pk=member.pk, deactivated_at=None).update(deactivated_at=Now())
    return _return_leases(member)


@transaction.atomic
def reactivate_member(*, membership: Membership, by: User) -> None:
    """The person is a member again, with the role they had. Locks the project's members.

    Raises:
        Forbidden: `by` is no manager, or is no engineer and the person would come back as one.
    """
    member = _locked(membership)
    own = _rights(project=member.project, by=by)
    if member.engineer and not own.engineer:
        raise Forbidden(_("This person was an engineer; only an engineer can bring them back."))
    Membership.objects.filter(pk=member.pk).update(deactivated_at=None)


@transaction.atomic
def make_password_link(*, membership: Membership, by: User) -> str:
    """Writes a link with which the person chooses a new password within 24 hours; returns its secret.

    Earlier links of that person stop working.

    Raises:
        Forbidden: `by` could enter an account that can do more than `by` may; see docs/roles.md.
    """
    person = membership.user
    refuse_password_link(person=person, by=by, project=membership.project)
    links.revoke_links(kind=PASSWORD, user=person)
    link = links.make_link(
        kind=PASSWORD, lifetime=PASSWORD_LIFETIME, user=person, project=membership.project, created_by=by
    )
    return link[1]


def get_password_link(secret: str, *, lock: bool = False) -> OneTimeLink:
    """The open link with this secret. Rights are looked at again: the person may have been given more meanwhile.

    Raises:
        NotFound: as links.get_open_link, or whoever made it may no longer (`link_revoked`).
    """
    link = links.get_open_link(kind=PASSWORD, secret=secret, lock=lock)
    try:
        if link.user is None or link.project is None or link.created_by is None or not link.created_by.is_active:
            raise Forbidden("")
        refuse_password_link(person=link.user, by=link.created_by, project=link.project)
    except (Forbidden, NotFound):
        raise NotFound(_("Whoever made this link may no longer do so."), code="link_revoked") from None
    return link


@transaction.atomic
def set_password_by_link(*, secret: str, password: str) -> User:
    """Sets the person's password and uses the link up; every session and API token they had ends. Locks the link.

    Raises:
        NotFound: as get_password_link.
        django.core.exceptions.ValidationError: a password that the validators refuse.
    """
    link = get_password_link(secret, lock=True)
    assert link.user is not None
    person = User.objects.select_for_update().get(pk=link.user.pk)
    validate_password(password, person)
    # A session carries a hash of the password it was opened with, so a new password ends them all.
    person.set_password(password)
    person.save(update_fields=["password"])
    revoke_tokens_of(person)
    links.use_up(link=link, by=person)
    return person


def refuse_password_link(*, person: User, by: User, project: Project) -> None:
    """Whoever has the link can become the person, so `by` must be able to do all that the person can.

    Raises:
        Forbidden: with the sentence that says why.
    """
    if person.kind != User.Kind.HUMAN or not person.is_active:
        raise Forbidden(_("This account cannot log in."))
    if by.is_superuser:
        return
    _rights(project=project, by=by)
    if person.is_superuser or person.is_staff or person.user_permissions.exists() or person.groups.exists():
        raise Forbidden(_("This person has rights over the whole server; an administrator makes the link."))
    theirs = list(Membership.objects.filter(user=person, deactivated_at=None).select_related("project"))
    if project.pk not in {one.project_id for one in theirs}:
        raise Forbidden(_("This person is no active member of the project."))
    own = {one.project_id: one for one in Membership.objects.filter(user=by, deactivated_at=None)}
    for one in theirs:
        mine = own.get(one.project_id)
        if mine is None or mine.role != Role.MANAGER:
            text = _("This person is also in a project that you do not manage; an administrator makes the link.")
            raise Forbidden(text)
        if one.engineer and not mine.engineer:
            raise Forbidden(
                _("This person is an engineer and you are not; an engineer or administrator makes the link.")
            )


def _locked(membership: Membership) -> Membership:
    lock_members(membership.project)
    return Membership.objects.select_for_update(of=("self",)).select_related("project", "user").get(pk=membership.pk)


def _rights(*, project: Project, by: User) -> Membership:
    own = membership_of(user=by, project=project)
    if RANK[own.role] < RANK[Role.MANAGER]:
        raise Forbidden(_("Only a manager of the project may do this."))
    return own


def _refuse_nonsense(*, role: str, weight: float) -> None:
    fields: dict[str, Any] = {}
    if role not in Role.values:
        fields["role"] = ", ".join(Role.values)
    if not 0 <= weight <= MAX_WEIGHT:
        fields["weight"] = _("From 0 to 100.")
    if fields:
        raise Invalid(_("This cannot be saved."), fields=fields)


def _refuse_last_manager(member: Membership, *, by: User) -> None:
    """Superusers manage every project, so they may leave one without a manager of its own."""
    if by.is_superuser or member.role != Role.MANAGER or member.deactivated_at is not None:
        return
    managers = Membership.objects.filter(project=member.project, role=Role.MANAGER, deactivated_at=None)
    if not managers.filter(user__is_active=True).exclude(pk=member.pk).exists():
        text = _("This is the project's only manager; make someone else a manager first.")
        raise Conflict(text, code="last_manager")


def _return_leases(member: Membership) -> int:
    one_call_at_a_time(project=member.project, annotator=member.user)
    held = Slot.objects.filter(project=member.project, holder=member.user, state=Slot.State.LEASED)
    leases = [pk for pk in held.order_by("pk").values_list("lease_id", flat=True) if pk is not None]
    for lease_id in leases:
        with suppress(Conflict):  # it ended by itself meanwhile
            release_lease(lease_id=lease_id, annotator=member.user)
    return len(leases)
