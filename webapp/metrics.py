"""`/metrics` for Prometheus: requests by view, and what the database says of runs, workers and annotators.

docs/operations.md names every figure. Requests are counted by all processes of this web server together (see
metrics_folder); the rest is asked of the database at each scrape.
"""

import ipaddress
import logging
import os
from collections.abc import Iterator, Mapping

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from training.selectors_workers import RunFigures, run_figures
from webapp.annotation_figures import AnnotationFigures, annotation_figures
from webapp.metrics_folder import VARIABLE

logger = logging.getLogger(__name__)

STATEMENT_SECONDS = 2
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# What a proxy adds: behind one that runs on this machine, everybody's address is this machine's.
FORWARDED = ("forwarded", "via", "x-forwarded-", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip")

disable_created_metrics()  # type: ignore[no-untyped-call]
_shared = os.environ.get(VARIABLE)  # prometheus_client looked at it in the import above
_own = CollectorRegistry()
REQUESTS = Counter(
    "plackett_http_requests",
    "Requests by view, method and status.",
    ["view", "method", "status"],
    registry=_own,
)
SECONDS = Histogram(
    "plackett_http_request_seconds",
    "Time until an answer began, in seconds, by view and method.",
    ["view", "method"],
    buckets=BUCKETS,
    registry=_own,
)


def count_request(request: HttpRequest, *, status: int, seconds: float) -> None:
    """Counts an answered request. Labels are names in our code, never what a visitor sent."""
    match = request.resolver_match
    view = match.view_name if match is not None else "unknown"
    method = request.method if request.method in METHODS else "other"
    REQUESTS.labels(view, method, str(status)).inc()
    SECONDS.labels(view, method).observe(seconds)


@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """The figures as text; whoever may not read them gets the 404 of an address that does not exist."""
    if not may_read(request):
        raise Http404
    return HttpResponse(_requests() + _figures(), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def may_read(request: HttpRequest) -> bool:
    """Whether it brings the token of the settings; if there is none, whether it comes from this very machine."""
    if settings.METRICS_TOKEN:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and constant_time_compare(token.strip(), settings.METRICS_TOKEN)
    forwarded = any(name.lower().startswith(FORWARDED) for name in request.headers)
    return not forwarded and _is_here(request.META.get("REMOTE_ADDR", ""))


def _is_here(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:  # a socket has no address; who stands behind it is not known
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def _requests() -> bytes:
    """The counts of requests: of all processes where they share a folder, else of this one."""
    if _shared is None:
        return generate_latest(_own)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, _shared)  # type: ignore[no-untyped-call]
    try:
        return generate_latest(registry)
    except FileNotFoundError:  # a process has just taken over the file of one that ended
        return generate_latest(registry)


def _figures() -> bytes:
    registry = CollectorRegistry()
    registry.register(DatabaseFigures())
    return generate_latest(registry)


class DatabaseFigures(Collector):
    """What the database says, asked when it is collected. Without an answer nothing is told but that."""

    def collect(self) -> Iterator[Metric]:
        try:
            runs, annotation = _ask()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("no figures from the database: %s", error)
            yield _gauge("database_up", "Whether the database answered in time.", 0)
            return
        yield _gauge("database_up", "Whether the database answered in time.", 1)
        yield from _of_runs(runs)
        yield from _of_annotation(annotation)


def _ask() -> tuple[RunFigures, AnnotationFigures]:
    """A few small queries, none of which may hold the database up."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", [f"{STATEMENT_SECONDS}s"])
        return run_figures(), annotation_figures()


def _of_runs(figures: RunFigures) -> Iterator[Metric]:
    yield _by("runs", "Runs of all projects by state.", "state", figures.by_state)
    leases = {"open": figures.leases_open, "expired": figures.leases_expired}
    yield _by("run_leases", "Runs that a worker holds; expired: its lease has ended.", "state", leases)
    yield _gauge("workers", "Workers that live.", figures.workers)
    queues = figures.queues
    runs = {name: one.runs for name, one in queues.items()}
    oldest = {name: one.oldest_seconds for name, one in queues.items()}
    workers = {name: one.workers for name, one in queues.items()}
    yield _by("queue_runs", "Runs that wait for a worker, by queue.", "queue", runs)
    yield _by("queue_oldest_seconds", "For how long the first of them has waited.", "queue", oldest)
    yield _by("queue_workers", "Workers that live and take runs from the queue.", "queue", workers)


def _of_annotation(figures: AnnotationFigures) -> Iterator[Metric]:
    leases = {"open": figures.leases_open, "expired": figures.leases_expired}
    yield _by("slot_leases", "Tasks in the hands of annotators; expired: not yet given to others.", "state", leases)
    about = "Rankings, revisions, skips and withdrawals ever recorded."
    yield CounterMetricFamily("plackett_changes", about, value=figures.changes)


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"plackett_{name}", about, value=value)


def _by(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"plackett_{name}", about, labels=[label])
    for one, value in values.items():
        family.add_metric([one], value)
    return family
