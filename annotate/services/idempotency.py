"""The first answer to a creating request, given again when the request is repeated with the same key."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from annotate.errors import Invalid
from annotate.models import IdempotencyKey, User
from annotate.prepared import prepared_cursor

#: How long a request can be repeated with its key.
KEPT_DAYS = 90


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status and a body of plain JSON values; `replayed`: it was given before."""

    status: int
    body: Any
    replayed: bool = False


def answer_once(*, user: User, endpoint: str, key: str, body_sha256: str, act: Callable[[], Answer]) -> Answer:
    """Runs `act` unless this user's key was used at this endpoint before; then returns the answer of that time.

    The key, what `act` writes and the answer commit together, so either all of it happened or nothing. Of two requests
    at once the second waits on the unique index for the first, and gets its answer if that one commits, or acts itself
    if that one failed. An `act` that raises leaves no key behind.

    Raises:
        Invalid: the key came before with another body.
        whatever `act` raises.
    """
    with transaction.atomic():
        if not _claim(user=user, endpoint=endpoint, key=key, body_sha256=body_sha256):
            return _first_answer(user=user, endpoint=endpoint, key=key, body_sha256=body_sha256)
        answer = act()
        _remember(answer, user=user, endpoint=endpoint, key=key)
        return answer


def answer_once_finished(*, user: User, endpoint: str, key: str, body_sha256: str, act: Callable[[], Answer]) -> Answer:
    """As answer_once, for an `act` that is too long for one transaction and harmless when it runs twice.

    The answer is kept when `act` has finished. Whoever comes before that acts too, and then gets the answer of whoever
    finished first.

    Raises:
        as answer_once.
    """
    who = {"user": user, "endpoint": endpoint, "key": key}
    if IdempotencyKey.objects.filter(**who).exists():
        return _first_answer(user=user, endpoint=endpoint, key=key, body_sha256=body_sha256)
    answer = act()
    with transaction.atomic():
        if not _claim(user=user, endpoint=endpoint, key=key, body_sha256=body_sha256):
            return _first_answer(user=user, endpoint=endpoint, key=key, body_sha256=body_sha256)
        _remember(answer, user=user, endpoint=endpoint, key=key)
    return answer


def _claim(*, user: User, endpoint: str, key: str, body_sha256: str) -> bool:
    with prepared_cursor() as cursor:
        cursor.execute(
            """INSERT INTO annotate_idempotencykey (user_id, endpoint, key, body_sha256, status, answer, created_at)
               VALUES (%s, %s, %s, %s, 0, 'null', now()) ON CONFLICT (user_id, endpoint, key) DO NOTHING""",
            [user.pk, endpoint, key, body_sha256],
        )
        return bool(cursor.rowcount)


def _first_answer(*, user: User, endpoint: str, key: str, body_sha256: str) -> Answer:
    first = IdempotencyKey.objects.get(user=user, endpoint=endpoint, key=key)
    if first.body_sha256 != body_sha256:
        raise Invalid(_("This Idempotency-Key was used before with another body."), code="idempotency_key_reused")
    return Answer(first.status, first.answer, replayed=True)


def _remember(answer: Answer, *, user: User, endpoint: str, key: str) -> None:
    with prepared_cursor() as cursor:
        cursor.execute(
            """UPDATE annotate_idempotencykey SET status = %s, answer = %s::jsonb
               WHERE user_id = %s AND endpoint = %s AND key = %s""",
            [answer.status, json.dumps(answer.body), user.pk, endpoint, key],
        )


def forget_keys(*, days: int = KEPT_DAYS, dry_run: bool = False) -> int:
    """Deletes the keys whose first answer is older than this many days, and returns how many there are.

    Whoever repeats a request after that is answered as if it were new; a submit is then refused, as a second answer.
    """
    old = IdempotencyKey.objects.filter(created_at__lt=Now() - timedelta(days=days))
    if dry_run:
        return old.count()
    return old.delete()[0]
