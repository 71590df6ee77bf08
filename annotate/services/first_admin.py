"""The one-time link with which the first administrator of a new server names themselves."""

import secrets
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from annotate.errors import Conflict, NotFound
from annotate.models import OneTimeLink, User
from annotate.services.tokens import digest_of

LIFETIME = timedelta(hours=24)


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
        raise Conflict("There is an administrator already; manage.py createsuperuser makes another.", code="has_admin")
    now = timezone.now()
    OneTimeLink.objects.filter(used_at__isnull=True, expires_at__gt=now).update(expires_at=now)
    secret = secrets.token_urlsafe(32)
    OneTimeLink.objects.create(digest=digest_of(secret), expires_at=now + LIFETIME)
    return secret


def get_open_link(secret: str, *, lock: bool = False) -> OneTimeLink:
    """The link with this secret, while it can be used.

    Raises:
        NotFound: unknown, used, expired, or no longer needed because a superuser exists.
    """
    links = OneTimeLink.objects.select_for_update() if lock else OneTimeLink.objects.all()
    link = links.filter(digest=digest_of(secret), used_at__isnull=True, expires_at__gt=timezone.now()).first()
    if link is None or has_admin():
        raise NotFound("This link does not work any more.")
    return link


@transaction.atomic
def make_first_admin(*, secret: str, username: str, password: str) -> User:
    """Uses the link up and writes the superuser. Locks the link, so that of two people only one gets in.

    Raises:
        NotFound: as get_open_link.
    """
    link = get_open_link(secret, lock=True)
    user = User.objects.create_superuser(username=username, password=password)
    OneTimeLink.objects.filter(pk=link.pk).update(used_at=timezone.now())
    return user
