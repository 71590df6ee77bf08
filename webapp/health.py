"""Is the process alive, and can it do its work? For supervisors and load balancers; nothing here needs a log-in."""

import logging
from collections.abc import Callable

import redis
from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

logger = logging.getLogger(__name__)
BROKER_TIMEOUT_SECONDS = 2


@require_safe
@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """200 as long as the process answers; touches nothing else."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_safe
@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """200 if database and broker answer, else 503; the body says which does not, the log says why."""
    parts = {"database": _works("database", _ask_database), "broker": _works("broker", _ask_broker)}
    ready = all(parts.values())
    body = {name: "ok" if works else "unreachable" for name, works in parts.items()}
    return JsonResponse({"ready": ready, **body}, status=200 if ready else 503)


def _works(name: str, ask: Callable[[], None]) -> bool:
    try:
        ask()
    except Exception as problem:  # whatever it is, the answer is the same: not ready
        logger.warning("%s is not ready: %s", name, problem)
        return False
    return True


def _ask_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _ask_broker() -> None:
    with redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=BROKER_TIMEOUT_SECONDS, socket_connect_timeout=BROKER_TIMEOUT_SECONDS
    ) as client:
        client.ping()
