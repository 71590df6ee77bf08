"""One-time links: whoever holds the secret may do one thing, once, before it expires. Only its SHA-256 is kept."""

import secrets
from datetime import timedelta
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from annotate.errors import NotFound
from annotate.models import OneTimeLink, User
from annotate.services.tokens import digest_of


def make_link(*, kind: OneTimeLink.Kind, lifetime: timedelta, **fields: Any) -> tuple[OneTimeLink, str]:
    """Writes a link and returns it with its secret (256 random bits), which cannot be read again."""
    secret = secrets.token_urlsafe(32)
    expires_at = timezone.now() + lifetime
    link = OneTimeLink.objects.create(kind=kind, digest=digest_of(secret), expires_at=expires_at, **fields)
    return link, secret


def get_open_link(*, kind: OneTimeLink.Kind, secret: str, lock: bool = False) -> OneTimeLink:
    """The link of this kind with this secret, while it can be used.

    With `lock` the row is held until the transaction ends: of two people at once, the second finds it used.

    Raises:
        NotFound: code `link_unknown`, `link_used`, `link_revoked` or `link_expired`; the message is for people.
    """
    links = OneTimeLink.objects.select_for_update(of=("self",)) if lock else OneTimeLink.objects.all()
    known = links.select_related("project", "user", "created_by")
    link = known.filter(kind=kind, digest=digest_of(secret)).first()
    if link is None:
        raise NotFound(_("There is no such link. Was all of it copied?"), code="link_unknown")
    if link.used_at is not None:
        raise NotFound(_("This link was used already; it works once."), code="link_used")
    if link.revoked_at is not None:
        raise NotFound(_("This link was revoked."), code="link_revoked")
    if link.expires_at <= timezone.now():
        raise NotFound(_("This link has expired."), code="link_expired")
    return link


def use_up(*, link: OneTimeLink, by: User) -> None:
    """Writes who used the link; it does not work again. Call it in the transaction that locked the link."""
    OneTimeLink.objects.filter(pk=link.pk).update(used_at=timezone.now(), used_by=by)


def revoke_links(**which: Any) -> int:
    """Revokes the open links that match these lookups, and returns how many there were."""
    still_open = OneTimeLink.objects.filter(used_at=None, revoked_at=None, expires_at__gt=timezone.now())
    return still_open.filter(**which).update(revoked_at=timezone.now())
