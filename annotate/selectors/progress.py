"""How far a project is, for everybody and for one annotator. A task with overlap 3 wants three rankings."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.core.cache import cache
from django.db.models import Count, Q
from django.db.models.functions import Now, TruncDay

from annotate.models import Project, Ranking, RankingTask, Slot, User
from annotate.prepared import prepared_cursor
from annotate.selectors.guidelines import IN_FORCE, Guidelines, guidelines_of_row

#: Counting a million slots takes a moment, and nobody sees the difference; of a few, everybody does.
CACHE_SECONDS = 20
CACHE_FROM = 20_000
#: A person's pace is that of their last rankings, and a bounded number is quick to read.
MEDIAN_OVER = 200


_WANTED = """
    SELECT count(*) AS wanted, count(*) FILTER (WHERE state = 'done') AS done
    FROM annotate_slot WHERE project_id = %(project)s AND NOT beyond_overlap
"""
_OWN_PACE = """
    SELECT count(*) AS own, count(*) FILTER (WHERE submitted_at >= date_trunc('day', now())) AS today,
        (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) FROM (
            SELECT seconds FROM annotate_ranking
            WHERE project_id = %(project)s AND annotator_id = %(user)s AND revision = 1 AND seconds IS NOT NULL
            ORDER BY submitted_at DESC LIMIT %(over)s) AS lately) AS median
    FROM annotate_ranking WHERE project_id = %(project)s AND annotator_id = %(user)s AND revision = 1
"""
# One statement, because an annotator waits for it after every answer; the second where the counts are known.
_STANDING = f"SELECT * FROM ({_OWN_PACE}) AS pace, ({IN_FORCE}) AS guidelines, ({_WANTED}) AS counts"
_STANDING_WITHOUT_COUNTS = f"SELECT * FROM ({_OWN_PACE}) AS pace, ({IN_FORCE}) AS guidelines"


@dataclass(frozen=True, slots=True)
class ProjectProgress:
    """Rankings wanted in all, rankings done, tasks, and tasks held for the manager; machines' own places aside."""

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
    slots = Slot.objects.filter(project__in=projects, beyond_overlap=False).values("project")
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


@dataclass(frozen=True, slots=True)
class Standing:
    """How far an annotator and their project are, and the guidelines in force.

    Of the annotator's own rankings, first revisions alone: how many in all, how many since midnight (UTC), and the
    median time of the last 200 that say how long they took. `wanted` and `done` are counted as in project_progress.
    """

    own: int
    today: int
    median_seconds: float | None
    wanted: int
    done: int
    guidelines: Guidelines


def standing_of(*, user: User, project: Project) -> Standing:
    """How far the user and the project are; the counts of a large project are up to 20 seconds old."""
    key = f"wanted:{project.pk}"
    known: tuple[int, int] | None = cache.get(key)
    with prepared_cursor() as cursor:
        asked = {"user": user.pk, "project": project.pk, "over": MEDIAN_OVER}
        cursor.execute(_STANDING if known is None else _STANDING_WITHOUT_COUNTS, asked)
        own, today, median, *rest = cursor.fetchone()
    wanted, done = known or rest[3:]
    if known is None and wanted >= CACHE_FROM:
        cache.set(key, (wanted, done), CACHE_SECONDS)
    return Standing(own, today, median, wanted, done, guidelines_of_row(rest[:3]))


def imported_rankings(project: Project) -> int:
    """Rankings that came with imported data."""
    return Ranking.objects.filter(project=project, source=Ranking.Source.IMPORT).count()
