"""The one-time link with which the first administrator of a new server names themselves."""

from datetime import timedelta

from django.db import transaction
from django.utils.translation import gettext as _

from annotate.errors import Conflict, NotFound
from annotate.models import OneTimeLink, User
from annotate.services import links

LIFETIME = timedelta(hours=24)
KIND = OneTimeLink.Kind.FIRST_ADMIN


def has_admin() -> bool:
    """Whether anyone who may do everything exists already."""
    return User.objects.filter(is_superuser=True).exists()


@transaction.atomic
def make_first_admin_link() -> str:
    """Writes a new link and returns its secret; earlier links stop working.

    Raises:
        Conflict: a superuser exists.
    """
    if has_admin():
        raise Conflict(
            _("There is an administrator already; manage.py createsuperuser makes another."), code="has_admin"
        )
    links.revoke_links(kind=KIND)
    return links.make_link(kind=KIND, lifetime=LIFETIME)[1]


def get_open_link(secret: str, *, lock: bool = False) -> OneTimeLink:
    """The link with this secret, while it can be used.

    Raises:
        NotFound: unknown, used, revoked, expired, or no longer needed because a superuser exists.
    """
    link = links.get_open_link(kind=KIND, secret=secret, lock=lock)
    if has_admin():
        raise NotFound(_("This server has an administrator already."), code="has_admin")
    return link


@transaction.atomic
def make_first_admin(*, secret: str, username: str, password: str) -> User:
    """Uses the link up and writes the superuser. Locks the link, so that of two people only one gets in.

    Raises:
        NotFound: as get_open_link.
    """
    link = get_open_link(secret, lock=True)
    user = User.objects.create_superuser(username=username, password=password)
    links.use_up(link=link, by=user)
    return user
