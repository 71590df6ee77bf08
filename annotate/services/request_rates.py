"""How many requests a token of the API may make: counted in Redis, for all processes of the web server together.

A bucket for each token: it holds PLACKETT_API_BURST requests and gets PLACKETT_API_RATE back each minute, evenly. Kept
is one number, the time at which the bucket would be full again (the generic cell rate algorithm), so that counting is
one short script, which Redis runs as a whole: whatever comes at the same moment, nobody gets more than there is.

Nothing else hangs on it. While Redis is away nobody is held up: what it does not count is let through.
"""

import hashlib
import logging
import math
import threading
import time
from dataclasses import dataclass
from typing import Any

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 0.25  # that a request waits for Redis at most
ASKED_AGAIN_SECONDS = 5.0  # after a failure; until then no request waits for it

# Times in microseconds of the server's clock. A clock that was set back is no reason to wait for it to catch up.
SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local step, room = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = tonumber(redis.call('GET', KEYS[1]) or now)
local used = math.min(math.max(full - now, 0), room)
if used + step > room then return {0, math.ceil(used)} end
used = used + step
redis.call('SET', KEYS[1], string.format('%.0f', now + used), 'PX', math.ceil(used / 1000))
return {1, math.ceil(used)}
"""


SHA1 = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Limit:
    """A rate, from the settings.

    Attributes:
        rate: requests a minute that come back.
        burst: requests that may come at once.
    """

    rate: int
    burst: int

    @property
    def step(self) -> float:
        """Microseconds until one request has come back."""
        return 60e6 / self.rate

    @property
    def refill_seconds(self) -> int:
        """Until an empty bucket is full again."""
        return math.ceil(self.burst * self.step / 1e6)


@dataclass(frozen=True, slots=True)
class Count:
    """What a request met with.

    Attributes:
        allowed: it may go on.
        remaining: requests that may follow at once.
        full_seconds: until all of the burst is there again.
        wait_seconds: until the next one may come; 0 if it was allowed.
    """

    limit: Limit
    allowed: bool
    remaining: int
    full_seconds: int
    wait_seconds: int


def limit_set() -> Limit | None:
    """The limit of the settings; None where there is none."""
    return Limit(settings.API_RATE, settings.API_BURST) if settings.API_RATE else None


def count_request(name: str) -> Count | None:
    """Counts a request under this name; None if there is no limit, or no Redis to count with."""
    limit = limit_set()
    if limit is None or _away.lasts():
        return None
    room = limit.step * limit.burst
    try:
        allowed, used = _link.run(f"plackett:rate:{name}", limit.step, room)
    except redis.RedisError as error:
        _away.begins(error)
        return None
    _away.ends()
    wait = 0 if allowed else max(1, math.ceil((used + limit.step - room) / 1e6))
    return Count(limit, bool(allowed), max(0, int((room - used) / limit.step)), math.ceil(used / 1e6), wait)


class _Away:
    """Whether Redis did not answer a moment ago; said once when it begins, once when it ends."""

    def __init__(self) -> None:
        self._until = 0.0

    def lasts(self) -> bool:
        return time.monotonic() < self._until

    def begins(self, error: Exception) -> None:
        if not self._until:
            logger.warning("requests are not counted, and no token is held up, until Redis answers: %s", error)
        self._until = time.monotonic() + ASKED_AGAIN_SECONDS

    def ends(self) -> None:
        if self._until:
            logger.warning("Redis answers again: requests are counted")
        self._until = 0.0


_away = _Away()


class _Link(threading.local):
    """A connection to Redis of this thread's own: a client, with its pool and hooks, costs more than Redis does."""

    def __init__(self) -> None:
        self._url = ""
        self._connection: Any = None

    def run(self, key: str, *args: float) -> Any:
        """What the script answers.

        Raises:
            redis.RedisError: it does not; nothing of a late answer is ever read as that of another call.
        """
        for last in (False, False, True):  # a server that was restarted has lost both connection and script
            try:
                return self._ask("EVALSHA", SHA1, 1, key, *args)
            except redis.exceptions.NoScriptError:
                self._ask("SCRIPT", "LOAD", SCRIPT)
            except redis.ConnectionError:
                if last:
                    raise
        raise redis.ResponseError("the script was lost again and again")

    def _ask(self, *command: str | float) -> Any:
        if self._connection is None or self._url != settings.REDIS_URL:
            self._url, self._connection = settings.REDIS_URL, _connection(settings.REDIS_URL)
        try:
            self._connection.send_command(*command)
            return self._connection.read_response()
        except redis.ResponseError:
            raise
        except redis.RedisError:
            self._connection.disconnect()
            raise


def _connection(url: str) -> Any:
    times = {"socket_timeout": PATIENCE_SECONDS, "socket_connect_timeout": PATIENCE_SECONDS}
    return redis.ConnectionPool.from_url(url, **times, retry=Retry(NoBackoff(), 0)).make_connection()


_link = _Link()
