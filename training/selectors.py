"""Reads: who may see which runs and models, what a page shows of a run, and where a model came from.

Runs and models are the business of a project's engineers: an outsider learns nothing of them (404), a member who is no
engineer is told so (403).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext as _

from annotate.errors import Forbidden, NotFound
from annotate.models import Project, Snapshot, User
from annotate.selectors.projects import get_project_for, projects_of
from training.models import ModelVersion, Run, RunAttempt, RunMetric, Worker

Someone = User | AnonymousUser

ALIVE = timedelta(seconds=45)  # a worker that missed four signs of life is gone: as long as a lease
IS_ALIVE = Q(stopped_at=None, seen_at__gte=Now() - ALIVE)
SILENT_SECONDS = 25  # two heartbeats missed
RATE_WINDOW = 50  # steps from whose pace the time left is told


def engineered_projects(user: Someone) -> QuerySet[Project]:
    """The projects whose runs and models the user may see and start."""
    projects = projects_of(user)
    if not user.is_authenticated or user.is_superuser:
        return projects
    return projects.filter(memberships__user=user, memberships__engineer=True, memberships__deactivated_at=None)


def runs_for(user: Someone, *, project: Project | None = None) -> QuerySet[Run]:
    """Runs that the user may see, the newest first; of one project if it is given (and was authorised)."""
    runs = Run.objects.select_related("project", "snapshot", "started_by", "base_version", "model").order_by("-pk")
    runs = runs.defer("log_tail", "exit", "config", "stored")
    if project is not None:
        return runs.filter(project=project)
    return runs.filter(project__in=engineered_projects(user))


def get_run_for(user: Someone, run_id: int) -> Run:
    """The run, for an engineer of its project.

    Raises:
        NotFound: no such run, or none of the caller's business.
        Forbidden: a member who is no engineer.
    """
    run = Run.objects.select_related("project", "snapshot", "started_by", "base_version", "parent", "model")
    found = run.filter(pk=run_id).first()
    if found is None:
        raise NotFound(_("There is no such run."))
    _engineer_of(user, found.project, otherwise=_("There is no such run."))
    return found


def models_for(user: Someone, *, project: Project | None = None) -> QuerySet[ModelVersion]:
    """Models that the user may see, the newest first: those of engineered projects, and shared ones."""
    models = ModelVersion.objects.select_related("project", "run__snapshot", "parent").order_by("-pk")
    models = models.defer("run__stored")
    if project is not None:
        return models.filter(project=project)
    mine = engineered_projects(user)
    if not mine.exists():
        return models.none()
    return models.filter(Q(project__in=mine) | Q(shared=True))


def get_model_for(user: Someone, model_id: int) -> ModelVersion:
    """The model, for an engineer of its project, or of any project if it is shared.

    Raises:
        NotFound: no such model, or none of the caller's business.
        Forbidden: a member who is no engineer.
    """
    found = ModelVersion.objects.select_related("project", "run__snapshot", "parent").filter(pk=model_id).first()
    if found is None:
        raise NotFound(_("There is no such model."))
    if found.shared and engineered_projects(user).exists():
        return found
    _engineer_of(user, found.project, otherwise=_("There is no such model."))
    return found


def _engineer_of(user: Someone, project: Project, *, otherwise: str) -> None:
    try:
        get_project_for(user, project.slug, engineer=True)
    except NotFound:
        raise NotFound(otherwise) from None
    except Forbidden:
        raise Forbidden(_("Runs and models need the engineer right in the project; a manager can give it.")) from None


# --- what a run may start from ---------------------------------------------------------------------------------------


def train_pairs(snapshot: Snapshot) -> int:
    """How many strict preferences the snapshot has in its train split."""
    return pairs_of(snapshot, "train")


def pairs_of(snapshot: Snapshot, split: str) -> int:
    """How many strict preferences the snapshot has in a split."""
    return int(snapshot.counts.get("pairs_by_split", {}).get(split, 0))


def trainable_snapshots(project: Project) -> QuerySet[Snapshot]:
    """Snapshots of the project that runs may start from, the newest first."""
    return Snapshot.objects.filter(project=project, state=Snapshot.State.FROZEN).order_by("-pk")


def base_versions(project: Project) -> QuerySet[ModelVersion]:
    """Models of the registry that runs of this project may start from."""
    usable = ModelVersion.objects.filter(deleted_at=None, kind=ModelVersion.Kind.POLICY)
    return usable.filter(Q(project=project) | Q(shared=True)).order_by("-pk")


def base_version_for(*, project: Project, version_id: int) -> ModelVersion | None:
    """A model of the registry that a run of this project may name."""
    models = ModelVersion.objects.filter(pk=version_id, deleted_at=None)
    return models.filter(Q(project=project) | Q(shared=True)).first()


HOLD = "SELECT 1 FROM training_modelversion WHERE id = %s AND deleted_at IS NULL FOR SHARE"


def hold_version(version_id: int) -> bool:
    """Keeps a model from being deleted until the transaction ends; whether it is still there.

    Waits for a deletion that is on its way. Shared: runs that begin from one model do not wait for one another.
    """
    with connection.cursor() as cursor:
        cursor.execute(HOLD, [version_id])
        return cursor.fetchone() is not None


def reward_versions(project: Project) -> QuerySet[ModelVersion]:
    """Reward models of the registry that runs of this project may read."""
    usable = ModelVersion.objects.filter(deleted_at=None, kind=ModelVersion.Kind.REWARD)
    return usable.filter(Q(project=project) | Q(shared=True)).order_by("-pk")


def run_to_build_on(*, project: Project, run_id: int) -> Run | None:
    """A run of the project that makes a model, or has made one that is still there; to be called in a transaction.

    Locks the run's row: if it ended between this look and the commit of the run that is to wait for it, nobody would
    ever tell that one.
    """
    runs = Run.objects.select_for_update(of=("self",), no_key=True)
    run = runs.filter(pk=run_id, project=project).exclude(state=Run.State.CANCELLED).first()
    if run is None or run.kind in (Run.Kind.EVALUATE, Run.Kind.SAMPLE):
        return None
    gone = run.state == Run.State.SUCCEEDED and not ModelVersion.objects.filter(run=run, deleted_at=None).exists()
    return None if gone else run


def runs_to_wait_for(project: Project) -> QuerySet[Run]:
    """Runs of the project that will make a model, if they succeed, the newest first."""
    going_on = Run.objects.filter(project=project).exclude(state__in=(*Run.FINISHED, Run.State.STOPPING))
    return going_on.exclude(kind__in=(Run.Kind.EVALUATE, Run.Kind.SAMPLE)).order_by("-pk")


# --- for workers -----------------------------------------------------------------------------------------------------


def trainers_left_behind(*, run_id: int, host: str) -> list[tuple[int, float]]:
    """(process id, start time) of the trainers on this host whose attempts ended without a word."""
    lost = RunAttempt.objects.filter(run_id=run_id, host=host, outcome=RunAttempt.Outcome.LOST)
    found = lost.values_list("process_id", "process_started_at")
    return [(pid, started_at) for pid, started_at in found if pid is not None and started_at is not None]


# --- what a page shows of a run --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MetricsAnswer:
    """Rows after a step, and which of those seen before no longer hold.

    Attributes:
        attempt: the last attempt that said where it goes on; 0 before the first.
        discard_after: rows beyond this step, read under the caller's earlier attempt, were cut; null if none were.
        more: there are further rows after the last one here.
    """

    attempt: int
    discard_after: int | None
    rows: list[RunMetric]
    more: bool


def metrics_since(run: Run, *, since_step: int, seen_attempt: int | None, limit: int) -> MetricsAnswer:
    """Measurements after `since_step`, in order; a resumed run starts over from where it went on.

    Args:
        seen_attempt: the attempt that the caller's last answer named; None for a caller who has nothing yet.
    """
    # One that was claimed but has not begun yet is not named: what it cuts could then never be told.
    begun = dict(RunAttempt.objects.filter(run=run, from_step__isnull=False).values_list("number", "from_step"))
    later = [step for number, step in begun.items() if step is not None and number > (seen_attempt or 0)]
    discard_after = min(later, default=None) if seen_attempt is not None else None
    begin = since_step if discard_after is None else min(since_step, discard_after)
    rows = list(RunMetric.objects.filter(run=run, step__gt=begin).order_by("step")[: limit + 1])
    return MetricsAnswer(max(begun, default=0), discard_after, rows[:limit], len(rows) > limit)


@dataclass(frozen=True, slots=True)
class Health:
    """One word and one sentence on whether a run is well."""

    word: str  # good, warn, bad, or soft for nothing to say
    sentence: str


def health_of(run: Run, *, now: datetime | None = None) -> Health:
    """Whether the run is well, from its state, its worker's sign of life and its marks."""
    now = now or timezone.now()
    if run.state == Run.State.FAILED:
        return Health("bad", _("It failed; see the reason and the log below."))
    if run.is_finished:
        return Health("warn", _("Marked suspect: look before you trust it.")) if run.suspect else Health("soft", "")
    if run.state == Run.State.QUEUED:
        return _health_of_queued(run)
    if run.state == Run.State.WAITING:
        return Health("soft", _("Waits for the run it builds on."))
    assert run.heartbeat_at is not None and run.lease_expires_at is not None
    silent = max(now - run.heartbeat_at, timedelta()).total_seconds()
    if run.lease_expires_at < now:
        words = _("Its worker has not been heard of for %(seconds)d s; another takes over.")
        return Health("bad", words % {"seconds": silent})
    if silent > SILENT_SECONDS:
        return Health("warn", _("Its worker has not been heard of for %(seconds)d s.") % {"seconds": silent})
    return Health("warn", _("Marked suspect: look before you trust it.")) if run.suspect else Health("good", "")


def _health_of_queued(run: Run) -> Health:
    """Whether anybody is there who could take it."""
    living = Worker.objects.filter(IS_ALIVE, queues__contains=[run.queue])
    told = {"queue": run.queue, "count": living.count(), "nodes": run.nodes, "processes": run.processes}
    if not told["count"]:
        return Health("warn", _("No worker serves %(queue)s now: it waits until one is started.") % told)
    if not living.filter(processes__gte=run.processes).exists():
        return Health("warn", _("No worker of %(queue)s that is alive starts %(processes)d processes.") % told)
    if living.count() < run.nodes:
        return Health("warn", _("Waits for %(nodes)d workers of %(queue)s at once; %(count)d are alive.") % told)
    return Health("warn" if run.times_lost else "soft", _("Waits for a worker of the queue %(queue)s.") % told)


def seconds_left(run: Run) -> float | None:
    """An estimate from the pace of the last steps of this attempt; None while there is nothing to tell from."""
    if run.state != Run.State.RUNNING or run.total_steps is None or run.step >= run.total_steps:
        return None
    recent = RunMetric.objects.filter(run=run, attempt=run.attempt).order_by("-step")[:RATE_WINDOW]
    times = [row.values.get("time/step_seconds") for row in recent]
    known = [seconds for seconds in times if isinstance(seconds, int | float)]
    if not known:
        return None
    return sum(known) / len(known) * (run.total_steps - run.step)


def latest_metrics(run: Run) -> dict[str, float]:
    """Each measurement's last known value; some are not taken at every step."""
    recent = RunMetric.objects.filter(run=run).order_by("-step").values_list("values", flat=True)
    evaluated = recent.filter(values__has_any_keys=["validation/accuracy", "validation/loss", "validation/score"])
    latest: dict[str, float] = {}
    for values in [*recent[:1], *evaluated[:1]]:
        latest = {name: value for name, value in values.items() if value is not None} | latest
    return latest


# Who waits for whom: as parent, or as a model that is named by the run that makes it.
FAMILY = """
    WITH RECURSIVE edges AS (
        SELECT id AS one, parent_id AS other FROM training_run WHERE project_id = %(project)s AND parent_id IS NOT NULL
        UNION ALL
        SELECT id, substring(base_model FROM 5)::bigint FROM training_run
        WHERE project_id = %(project)s AND base_model ~ '^run:[0-9]{1,18}$'
        UNION ALL
        SELECT input.run_id, substring(input.name FROM 5)::bigint FROM training_runinput input
        JOIN training_run run ON run.id = input.run_id
        WHERE run.project_id = %(project)s AND input.name ~ '^run:[0-9]{1,18}$'
    ), family AS (
        SELECT %(run)s::bigint AS id
        UNION
        SELECT CASE edges.one WHEN family.id THEN edges.other ELSE edges.one END
        FROM edges JOIN family ON family.id IN (edges.one, edges.other)
    )
    SELECT id FROM family
"""


def family_of(run: Run) -> list[Run]:
    """The runs of its chain in the order in which they were started, this one among them; alone if nothing waits."""
    with connection.cursor() as cursor:
        cursor.execute(FAMILY, {"run": run.pk, "project": run.project_id})
        ids = [row[0] for row in cursor.fetchall()]
    return list(Run.objects.filter(pk__in=ids).order_by("pk"))


# --- lineage ---------------------------------------------------------------------------------------------------------


def lineage_of(model: ModelVersion) -> list[ModelVersion]:
    """The models that this one was trained from, the nearest first."""
    chain: list[ModelVersion] = []
    parent = model.parent
    while parent is not None:
        chain.append(parent)
        parent = parent.parent
    return chain


# Models that were trained, themselves or through others, from the snapshots that a condition chooses.
_TAINTED = """
    WITH RECURSIVE tainted AS (
        SELECT model.id FROM training_modelversion model
        JOIN training_run run ON run.id = model.run_id
        JOIN annotate_snapshot snapshot ON snapshot.id = run.snapshot_id AND {chosen}
        UNION
        SELECT child.id FROM training_modelversion child
        LEFT JOIN training_runinput input ON input.run_id = child.run_id
        JOIN tainted ON tainted.id IN (child.parent_id, input.version_id)
    )
    SELECT id FROM tainted
"""
WITHDRAWN = _TAINTED.format(chosen="snapshot.state = 'withdrawn'") + " WHERE id = ANY (%s)"
OF_SNAPSHOTS = _TAINTED.format(chosen="snapshot.id = ANY (%s)")


def withdrawn_among(models: list[ModelVersion]) -> set[int]:
    """Ids of those models that were trained, themselves or through a model that they started from or
    learned from, from a snapshot since withdrawn."""
    if not models:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(WITHDRAWN, [[model.pk for model in models]])
        return {row[0] for row in cursor.fetchall()}


def models_from_snapshots(snapshots: Collection[int]) -> list[str]:
    """What was trained, itself or through another model, from any of these snapshots: names, for whoever withdraws."""
    with connection.cursor() as cursor:
        cursor.execute(OF_SNAPSHOTS, [list(snapshots)])
        found = ModelVersion.objects.filter(pk__in=[row[0] for row in cursor.fetchall()]).order_by("pk")
    own = set(Snapshot.objects.filter(pk__in=snapshots).values_list("project", flat=True))
    return [f"{one.name} ({one.pk})" if one.project_id in own else _("one of another project") for one in found]


def accuracy_of(report: Mapping[str, Any] | None, *, what: str = "accuracy") -> dict[str, Any] | None:
    """The held-out `accuracy` or `length_baseline` of a report: {"value", "low", "high", …}; None if it has none."""
    found = ((report or {}).get("validation") or {}).get(what)
    return dict(found) if isinstance(found, Mapping) and found.get("value") is not None else None
