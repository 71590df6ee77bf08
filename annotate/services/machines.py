"""Machine annotators: an LLM judge or a reward model that ranks by the API, as an account that nobody can log in to."""

import re

from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from annotate.errors import Forbidden, Invalid, NotFound
from annotate.models import ApiToken, Membership, Project, Role, User
from annotate.selectors.projects import RANK, membership_of
from annotate.services.locks import lock_members
from annotate.services.members import MAX_WEIGHT, deactivate_member
from annotate.services.projects import add_member
from annotate.services.tokens import create_token, revoke_tokens_of

SCOPES = (ApiToken.Scope.READ, ApiToken.Scope.ANNOTATE)
OPEN_LEASES = 32
MOST_OPEN_LEASES = 1000
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,59}")


@transaction.atomic
def create_machine(
    *, project: Project, by: User, name: str, fills_places: bool = False, open_lease_limit: int = OPEN_LEASES
) -> tuple[Membership, str]:
    """Makes an account of the kind `machine` that ranks in this project, and returns it with its token, shown once.

    Unless `fills_places`, its rankings stand on places of its own: people's overlap and progress stay as they are.

    Raises:
        Forbidden: `by` is no manager.
        Invalid: a name that cannot be or is taken, or a limit outside 1 to 1000.
    """
    _refuse_others(project, by=by)
    _check(open_lease_limit=open_lease_limit)
    if not _NAME.fullmatch(name):
        words = _("Up to 60 small letters, digits, full stops, hyphens and underscores.")
        raise Invalid(words, fields={"name": words})
    lock_members(project)
    user = User(username=f"{project.slug}.{name}"[:150], first_name=name, kind=User.Kind.MACHINE)
    user.set_unusable_password()
    try:
        with transaction.atomic():
            user.save(force_insert=True)
    except IntegrityError:
        words = _("There is an account with this name already.")
        raise Invalid(words, fields={"name": words}) from None
    member = add_member(project=project, user=user, role=Role.ANNOTATOR)
    chosen = {"fills_places": fills_places, "open_lease_limit": open_lease_limit}
    Membership.objects.filter(pk=member.pk).update(**chosen)
    member.refresh_from_db()
    return member, _new_token(user)


@transaction.atomic
def change_machine(
    *, membership: Membership, by: User, fills_places: bool, open_lease_limit: int, weight: float
) -> Membership:
    """Sets where its rankings go from now on, how many tasks it may hold, and their weight in training.

    Raises:
        Forbidden, Invalid: as create_machine; or a weight outside 0 to 100.
        NotFound: this is no machine.
    """
    _refuse_others(membership.project, by=by)
    _refuse_people(membership)
    _check(open_lease_limit=open_lease_limit, weight=weight)
    chosen = {"fills_places": fills_places, "open_lease_limit": open_lease_limit, "weight": weight}
    Membership.objects.filter(pk=membership.pk).update(**chosen)
    membership.refresh_from_db()
    return membership


@transaction.atomic
def renew_machine_token(*, membership: Membership, by: User) -> str:
    """A new token, shown once; the ones before stop working.

    Raises:
        Forbidden, NotFound: as change_machine.
    """
    _refuse_others(membership.project, by=by)
    _refuse_people(membership)
    revoke_tokens_of(membership.user)
    return _new_token(membership.user)


@transaction.atomic
def dismiss_machine(*, membership: Membership, by: User) -> None:
    """Ends its tokens and its membership; what it holds goes back, its rankings stay. Doing it again changes nothing.

    Raises:
        Forbidden, NotFound: as change_machine.
    """
    _refuse_others(membership.project, by=by)
    _refuse_people(membership)
    deactivate_member(membership=membership, by=by)
    revoke_tokens_of(membership.user)


def _new_token(user: User) -> str:
    return create_token(user=user, name="machine", scopes=SCOPES)[1]


def _refuse_others(project: Project, *, by: User) -> None:
    if RANK[membership_of(user=by, project=project).role] < RANK[Role.MANAGER]:
        raise Forbidden(_("Only a manager of the project may do this."))


def _refuse_people(membership: Membership) -> None:
    if membership.user.kind != User.Kind.MACHINE:
        raise NotFound(_("There is no such machine."))


def _check(*, open_lease_limit: int, weight: float = 1.0) -> None:
    fields = {}
    if not 1 <= open_lease_limit <= MOST_OPEN_LEASES:
        fields["open_lease_limit"] = _("From 1 to 1000.")
    if not 0 <= weight <= MAX_WEIGHT:
        fields["weight"] = _("From 0 to 100.")
    if fields:
        raise Invalid(_("This cannot be saved."), fields=fields)
