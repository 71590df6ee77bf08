"""Inviting people into a project by a link that a manager passes on in their own way; no mail is needed."""

from datetime import timedelta

from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from annotate.errors import Conflict, Forbidden, Invalid, NotFound
from annotate.models import Membership, OneTimeLink, Project, Role, User
from annotate.selectors.projects import RANK, membership_of
from annotate.services import links
from annotate.services.locks import lock_members

LIFETIME = timedelta(days=7)
KIND = OneTimeLink.Kind.INVITATION


def create_invitation(
    *, project: Project, by: User, role: str, engineer: bool = False, note: str = ""
) -> tuple[OneTimeLink, str]:
    """Writes an invitation that is good for 7 days, and returns it with the secret of its link.

    Raises:
        Forbidden: `by` is no manager, or gives the engineer right without having it.
        Invalid: an unknown role.
    """
    if role not in Role.values:
        raise Invalid(_("There is no such role."), fields={"role": ", ".join(Role.values)})
    _refuse_without_right(project=project, by=by, engineer=engineer)
    return links.make_link(
        kind=KIND,
        lifetime=LIFETIME,
        project=project,
        role=role,
        engineer=engineer,
        note=note.strip(),
        created_by=by,
    )


def revoke_invitation(*, project: Project, link_id: int) -> None:
    """The link stops working; one that is used or over stays as it is.

    Raises:
        NotFound: the project has no such invitation.
    """
    if not OneTimeLink.objects.filter(kind=KIND, project=project, pk=link_id).exists():
        raise NotFound(_("There is no such invitation."))
    links.revoke_links(kind=KIND, project=project, pk=link_id)


def get_invitation(secret: str, *, lock: bool = False) -> OneTimeLink:
    """The invitation behind a link, while it can be accepted.

    It lives only as long as the right of whoever made it, so nobody keeps a way back into a project they left.

    Raises:
        NotFound: as links.get_open_link; or its author may no longer invite (`link_revoked`), or the project is
            archived.
    """
    link = links.get_open_link(kind=KIND, secret=secret, lock=lock)
    assert link.project is not None
    if link.project.archived_at is not None:
        raise NotFound(_("The project of this invitation is closed."), code="link_revoked")
    try:
        if link.created_by is None or not link.created_by.is_active:
            raise Forbidden("")
        _refuse_without_right(project=link.project, by=link.created_by, engineer=link.engineer)
    except (Forbidden, NotFound):
        text = _("Whoever made this invitation may no longer invite to the project.")
        raise NotFound(text, code="link_revoked") from None
    return link


@transaction.atomic
def accept_invitation(*, secret: str, user: User) -> Membership:
    """Makes the user a member with the role of the invitation, and uses it up. A deactivated member comes back.

    Locks the link and the project's members.

    Raises:
        NotFound: as get_invitation.
        Conflict: the user is a member already (`already_member`); the invitation stays open for someone else.
    """
    link = get_invitation(secret, lock=True)
    assert link.project is not None
    lock_members(link.project)
    if Membership.objects.filter(project=link.project, user=user, deactivated_at=None).exists():
        text = _("You are a member of this project already; a manager can change your role.")
        raise Conflict(text, code="already_member")
    given = {"role": link.role, "engineer": link.engineer, "deactivated_at": None}
    membership, _created = Membership.objects.update_or_create(project=link.project, user=user, defaults=given)
    links.use_up(link=link, by=user)
    return membership


@transaction.atomic
def accept_as_new_person(*, secret: str, username: str, password: str) -> Membership:
    """Writes a new account and its membership; locks as accept_invitation. The validators have seen the password.

    Raises:
        NotFound: as get_invitation.
        Invalid: the name is taken.
    """
    get_invitation(secret, lock=True)
    taken = Invalid(_("This name is taken."), fields={"username": _("This name is taken.")})
    if User.objects.filter(username__iexact=username).exists():
        raise taken
    try:
        with transaction.atomic():
            user = User.objects.create_user(username=username, password=password)
    except IntegrityError:
        raise taken from None
    return accept_invitation(secret=secret, user=user)


def open_invitations(project: Project) -> list[OneTimeLink]:
    """Those that can still be accepted, newest first."""
    found = OneTimeLink.objects.filter(
        kind=KIND, project=project, used_at=None, revoked_at=None, expires_at__gt=timezone.now()
    )
    return list(found.select_related("created_by").order_by("-created_at"))


def _refuse_without_right(*, project: Project, by: User, engineer: bool) -> None:
    membership = membership_of(user=by, project=project)
    if RANK[membership.role] < RANK[Role.MANAGER]:
        raise Forbidden(_("Only a manager of the project may do this."))
    if engineer and not membership.engineer:
        raise Forbidden(_("Only an engineer can give the engineer right."))
