"""How far a project is, for everybody and for one annotator. A task with overlap 3 wants three rankings."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from django.core.cache import cache
from django.db import connection
from django.db.models import Count, Q
from django.db.models.functions import Now, TruncDay

from annotate.models import Project, Ranking, RankingTask, Slot, User

#: Counting a million slots takes a moment, and nobody sees the difference; of a few, everybody does.
CACHE_SECONDS = 20
CACHE_FROM = 20_000
#: A person's pace is that of their last rankings, and a bounded number is quick to read.
MEDIAN_OVER = 200


_WANTED = "SELECT count(*), count(*) FILTER (WHERE state = 'done') FROM annotate_slot WHERE project_id = %s"
_OWN_PACE = """
    SELECT count(*), count(*) FILTER (WHERE submitted_at >= date_trunc('day', now())),
        (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) FROM (
            SELECT seconds FROM annotate_ranking
            WHERE project_id = %(project)s AND annotator_id = %(user)s AND revision = 1 AND seconds IS NOT NULL
            ORDER BY submitted_at DESC LIMIT %(over)s) AS lately)
    FROM annotate_ranking WHERE project_id = %(project)s AND annotator_id = %(user)s AND revision = 1
"""


@dataclass(frozen=True, slots=True)
class ProjectProgress:
    """Rankings wanted in all, rankings done, tasks, and tasks held for the manager."""

    wanted: int
    done: int
    tasks: int
    held: int

    @property
    def left(self) -> int:
        return self.wanted - self.done


@dataclass(frozen=True, slots=True)
class OwnProgress:
    """One annotator's rankings: in all, and since midnight (UTC)."""

    done: int
    today: int


def project_progress(projects: Iterable[Project]) -> dict[int, ProjectProgress]:
    """Progress by project id; that of a large project is up to 20 seconds old."""
    keys = {f"progress:{project.pk}": project.pk for project in projects}
    known: dict[str, ProjectProgress] = cache.get_many(keys)
    missing = [pk for key, pk in keys.items() if key not in known]
    if missing:
        fresh = _count(missing)
        large = {f"progress:{pk}": value for pk, value in fresh.items() if value.wanted >= CACHE_FROM}
        cache.set_many(large, CACHE_SECONDS)
        known |= {f"progress:{pk}": value for pk, value in fresh.items()}
    return {pk: known[key] for key, pk in keys.items()}


def _count(projects: list[int]) -> dict[int, ProjectProgress]:
    slots = Slot.objects.filter(project__in=projects).values("project")
    done = Count("pk", filter=Q(state=Slot.State.DONE))
    of_slots = {pk: counts for pk, *counts in slots.annotate(a=Count("pk"), b=done).values_list("project", "a", "b")}
    tasks = RankingTask.objects.filter(project__in=projects, overlap__gt=0).values("project")
    held = Count("pk", filter=Q(state=RankingTask.State.HELD))
    of_tasks = {pk: counts for pk, *counts in tasks.annotate(a=Count("pk"), b=held).values_list("project", "a", "b")}
    return {pk: ProjectProgress(*of_slots.get(pk, (0, 0)), *of_tasks.get(pk, (0, 0))) for pk in projects}


def own_progress(*, user: User, projects: Iterable[Project]) -> dict[int, OwnProgress]:
    """The user's own rankings, first revisions only, by project id."""
    wanted = [project.pk for project in projects]
    rows = {
        row["project"]: row
        for row in Ranking.objects.filter(project__in=wanted, annotator=user, revision=1)
        .values("project")
        .annotate(done=Count("pk"), today=Count("pk", filter=Q(submitted_at__gte=TruncDay(Now()))))
    }
    return {pk: OwnProgress(rows[pk]["done"], rows[pk]["today"]) if pk in rows else OwnProgress(0, 0) for pk in wanted}


def answers_wanted(project: Project) -> tuple[int, int]:
    """Rankings wanted and done, counted as in project_progress."""
    key = f"wanted:{project.pk}"
    known: tuple[int, int] | None = cache.get(key)
    if known is None:
        with connection.cursor() as cursor:
            cursor.execute(_WANTED, [project.pk])
            known = wanted, _ = cursor.fetchone()
        if wanted >= CACHE_FROM:
            cache.set(key, known, CACHE_SECONDS)
    return known


@dataclass(frozen=True, slots=True)
class OwnPace:
    """One annotator's rankings in one project: in all, since midnight (UTC), and their median time lately."""

    done: int
    today: int
    median_seconds: float | None


def own_pace(*, user: User, project: Project) -> OwnPace:
    """The user's own rankings, first revisions only; the median is over the last 200 that say how long they took."""
    with connection.cursor() as cursor:
        cursor.execute(_OWN_PACE, {"user": user.pk, "project": project.pk, "over": MEDIAN_OVER})
        return OwnPace(*cursor.fetchone())


def recent_rankings(project: Project, *, days: int = 7) -> int:
    """Rankings submitted here (not imported) in the last `days` days, first revisions only."""
    return (
        Ranking.objects.filter(project=project, revision=1, submitted_at__gte=Now() - timedelta(days=days))
        .exclude(source=Ranking.Source.IMPORT)
        .count()
    )


def imported_rankings(project: Project) -> int:
    """Rankings that came with imported data."""
    return Ranking.objects.filter(project=project, source=Ranking.Source.IMPORT).count()
