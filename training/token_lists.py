"""Pieces of responses on their way from a worker to whoever watches: a short list in Redis for each attempt at a run.

Nothing hangs on it. A server that is away or was restarted costs what it held: the responses themselves come with the
run's result. A list is bounded, and is gone an hour after its last piece.
"""

import functools
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import redis
from django.conf import settings

logger = logging.getLogger(__name__)

MOST_PIECES = 20_000
SECONDS_TO_LIVE = 3600
PATIENCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of one response; `number` counts the pieces of an attempt from 0."""

    number: int
    model: int
    sample: int
    text: str


@dataclass(frozen=True, slots=True)
class Listed:
    """Pieces that are there, and the number of the next; `gap`: some before them were lost."""

    pieces: Sequence[Piece]
    next: int
    gap: bool = False


def key_of(run_id: int, attempt: int, created_at: datetime) -> str:
    """The list's name; with the time, as a restored database may give a run's number again."""
    return f"plackett:pieces:{run_id}:{attempt}:{int(created_at.timestamp() * 1e6)}"


def append_pieces(key: str, pieces: Sequence[Piece]) -> bool:
    """Adds pieces to a list; whether that succeeded."""
    rows = [json.dumps([one.number, one.model, one.sample, one.text]) for one in pieces]
    try:
        pipe = _client(settings.REDIS_URL).pipeline(transaction=False)
        pipe.rpush(key, *rows)
        pipe.ltrim(key, -MOST_PIECES, -1)
        pipe.expire(key, SECONDS_TO_LIVE)
        pipe.execute()
    except redis.RedisError as error:
        logger.warning("pieces of responses were lost: %s", error)
        return False
    return True


def pieces_since(key: str, since: int) -> Listed:
    """The pieces from number `since` on; none where there are none, or the server does not answer."""
    try:
        client = _client(settings.REDIS_URL)
        first = client.lindex(key, 0)
        if first is None:
            return Listed((), since)
        rows = client.lrange(key, max(0, since - json.loads(first)[0]), -1)
    except redis.RedisError as error:
        logger.warning("pieces of responses cannot be read: %s", error)
        return Listed((), since)
    # Asked again by number: the list may have been cut at its beginning between the two questions.
    pieces = [piece for piece in (Piece(*json.loads(row)) for row in rows) if piece.number >= since]
    if not pieces:
        return Listed((), since)
    numbers = [since - 1, *(piece.number for piece in pieces)]
    gap = numbers[-1] - numbers[0] != len(pieces)
    return Listed(pieces, pieces[-1].number + 1, gap)


@functools.cache
def _client(url: str) -> "redis.Redis":
    return redis.Redis.from_url(
        url, socket_timeout=PATIENCE_SECONDS, socket_connect_timeout=PATIENCE_SECONDS, decode_responses=True
    )
