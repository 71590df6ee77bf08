"""Tokens of the REST API: made, found, revoked. Only their SHA-256 is stored."""

import hashlib
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from annotate.errors import Invalid
from annotate.models import ApiToken, User
from annotate.prepared import Columns, prepared_cursor
from annotate.selectors.tokens import scopes_open_to, usable_tokens

PREFIX = "pk_"
MOST_OWN = 50  # each has a rate of its own
TOUCH_EVERY = timedelta(minutes=1)


def digest_of(token: str) -> str:
    """What is stored of a token. A token is 256 random bits, so one round of SHA-256 without salt is enough."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def create_token(
    *, user: User, name: str, scopes: Iterable[str], expires_at: datetime | None = None
) -> tuple[ApiToken, str]:
    """Writes a token and returns it with its secret, which cannot be read again.

    Raises:
        Invalid: an unknown scope, none at all, or an expiry in the past.
    """
    wanted = sorted(set(scopes))
    unknown = [scope for scope in wanted if scope not in ApiToken.Scope.values]
    if unknown or not wanted:
        known = ", ".join(ApiToken.Scope.values)
        raise Invalid(
            _("Scopes are some of %(known)s.") % {"known": known}, fields={"scopes": f"Choose some of {known}."}
        )
    if expires_at is not None and expires_at <= timezone.now():
        raise Invalid(_("The expiry lies in the past."), fields={"expires_at": "Choose an instant in the future."})
    secret = PREFIX + secrets.token_urlsafe(32)
    token = ApiToken.objects.create(
        user=user,
        name=name,
        prefix=secret[:8],
        digest=digest_of(secret),
        scopes=wanted,
        expires_at=expires_at,
    )
    return token, secret


@transaction.atomic
def create_own_token(
    *, user: User, name: str, scopes: Iterable[str], expires_at: datetime | None
) -> tuple[ApiToken, str]:
    """As create_token, for a person who makes one for themselves. Locks the user's row.

    Raises:
        Invalid: as create_token; or a scope that is not open to the user, or 50 tokens that work already.
    """
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    wanted = set(scopes)
    if beyond := sorted(wanted - {scope.value for scope in scopes_open_to(user)}):
        words = _("None of your roles is for the scope %(scope)s.") % {"scope": ", ".join(beyond)}
        raise Invalid(words, fields={"scopes": words})
    if usable_tokens(user).count() >= MOST_OWN:
        raise Invalid(_("You have %(most)d tokens that work. Revoke one first.") % {"most": MOST_OWN})
    return create_token(user=user, name=name, scopes=wanted, expires_at=expires_at)


_TOKEN = Columns(ApiToken, "token")
_PERSON = Columns(User, "person")
_FIND = f"""
    SELECT {_TOKEN.sql}, {_PERSON.sql} FROM annotate_apitoken token
    JOIN annotate_user person ON person.id = token.user_id
    WHERE token.digest = %s AND token.revoked_at IS NULL AND person.is_active
      AND (token.expires_at IS NULL OR token.expires_at > statement_timestamp())
"""


def find_token(secret: str) -> ApiToken | None:
    """The usable token with this secret, its user loaded: not revoked, not expired, the user active."""
    with prepared_cursor() as cursor:
        cursor.execute(_FIND, [digest_of(secret)])
        found = cursor.fetchone()
    if found is None:
        return None
    token = _TOKEN.row(found[: len(_TOKEN)])
    token.user = _PERSON.row(found[len(_TOKEN) :])
    return token


def touch_token(token: ApiToken) -> None:
    """Notes that the token was used, at most once a minute, so that a busy client does not write on every request."""
    now = timezone.now()
    if token.last_used_at is not None and now - token.last_used_at < TOUCH_EVERY:
        return
    stale = Q(last_used_at__isnull=True) | Q(last_used_at__lte=now - TOUCH_EVERY)
    ApiToken.objects.filter(stale, pk=token.pk).update(last_used_at=now)


def revoke_token(*, token: ApiToken) -> None:
    """The token stops working at once; revoking it again changes nothing."""
    ApiToken.objects.filter(pk=token.pk, revoked_at__isnull=True).update(revoked_at=timezone.now())


def revoke_tokens_of(user: User) -> int:
    """Every token of this user stops working at once; returns how many there were.

    Part of giving somebody a new password: whoever had the account may have made a token to keep.
    """
    return ApiToken.objects.filter(user=user, revoked_at__isnull=True).update(revoked_at=timezone.now())
