"""Where a project stands at a glance, for its page. Bounded: counts of a large project are up to 20 seconds old."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.core.cache import cache
from django.db import connection
from django.db.models import Count, Max, Min, Q
from django.db.models.functions import Now
from django.utils import timezone

from annotate.models import Membership, Project, Ranking, RankingTask, Role, Skip, Slot, User
from annotate.selectors.progress import CACHE_FROM, CACHE_SECONDS, imported_rankings, project_progress

PACE_DAYS = 7
#: What can be handed out lasts less long than this: the queue is nearly dry.
DRY_WITHIN_DAYS = 1
#: Without a sign of life for so long, a task on somebody's page is worth a question.
QUIET_AFTER = timedelta(minutes=30)
#: So many skips in the last days, and so large a share of what was looked at, are worth one too.
MANY_SKIPS, SKIP_SHARE = 5, 0.25
MEDIAN_OVER = 200
ROWS = 200


@dataclass(frozen=True, slots=True)
class Overview:
    """Rankings wanted, done, on somebody's page, and places that can be handed out now; and the last days' pace.

    Attributes:
        free: places that the queue can hand out; those of held tasks are not among them.
        recent: rankings that closed a place in the last 7 days.
        active: people who made them.
        since: when the first of them was made.
    """

    wanted: int
    done: int
    leased: int
    free: int
    held: int
    tasks: int
    imported: int
    recent: int
    active: int
    since: datetime | None

    @property
    def left(self) -> int:
        return self.wanted - self.done - self.leased

    def days_left(self, now: datetime) -> float | None:
        """How long the rest takes at the pace of the last 7 days, or of the days since the first ranking if fewer;
        None without a pace or a rest."""
        return self._days_for(self.wanted - self.done, now)

    def nearly_dry(self, now: datetime) -> bool:
        """Something is left to hand out, but it lasts less than a day at the pace of `days_left`, or there are fewer
        places than people at work; never without a pace."""
        days = self._days_for(self.free, now)
        return days is not None and (days < DRY_WITHIN_DAYS or self.free < self.active)

    def _days_for(self, rankings: int, now: datetime) -> float | None:
        if not rankings or not self.recent or self.since is None:
            return None
        days = min(PACE_DAYS, max(1.0, (now - self.since) / timedelta(days=1)))
        return rankings * days / self.recent


@dataclass(frozen=True, slots=True)
class OpenLease:
    """A task on somebody's page. `seen` is the last sign of life; `over`: the time is up, nobody has taken it yet."""

    task: int
    since: datetime
    seen: datetime
    over: bool


@dataclass(frozen=True, slots=True)
class AnnotatorRow:
    """What one member did. Counts are of the whole project, `recent_…` of the last 7 days."""

    membership: Membership
    done: int
    recent_done: int
    median_seconds: float | None
    last_seen: datetime | None
    skips: int
    recent_skips: int
    leases: Sequence[OpenLease]

    def quiet_lease(self, now: datetime) -> OpenLease | None:
        """The lease that has been without a sign of life for the longest, if that is long."""
        quiet = [lease for lease in self.leases if lease.over or now - lease.seen >= QUIET_AFTER]
        return min(quiet, key=lambda lease: lease.seen, default=None)

    @property
    def skips_much(self) -> bool:
        looked_at = self.recent_skips + self.recent_done
        return self.recent_skips >= MANY_SKIPS and self.recent_skips >= SKIP_SHARE * looked_at


def project_overview(project: Project) -> Overview:
    """Counts and pace of a project."""
    key = f"overview:{project.pk}"
    found: Overview | None = cache.get(key)
    if found is None:
        found = _count(project)
        if max(found.wanted, found.imported) >= CACHE_FROM:
            cache.set(key, found, CACHE_SECONDS)
    return found


def _count(project: Project) -> Overview:
    progress = project_progress([project])[project.pk]
    slots = Slot.objects.filter(project=project, beyond_overlap=False)
    leased = slots.filter(state=Slot.State.LEASED).count()
    held = RankingTask.objects.filter(project=project, state=RankingTask.State.HELD)
    of_held = Slot.objects.filter(task__in=held, state=Slot.State.FREE).count()
    return Overview(
        wanted=progress.wanted,
        done=progress.done,
        leased=leased,
        free=progress.wanted - progress.done - leased - of_held,
        held=held.filter(prompt__withdrawn_at=None).count(),
        tasks=progress.tasks,
        imported=imported_rankings(project),
        **_pace(project),
    )


def _made_here(project: Project) -> Any:
    recent = Now() - timedelta(days=PACE_DAYS)
    return Ranking.objects.filter(
        project=project,
        revision=1,
        source__in=[Ranking.Source.PAGE, Ranking.Source.API],
        submitted_at__gte=recent,
    )


def _pace(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = (
        _made_here(project)
        .filter(counted=True, slot__beyond_overlap=False)
        .aggregate(
            recent=Count("pk"),
            active=Count("annotator", distinct=True),
            since=Min("submitted_at"),
        )
    )
    return found


def annotator_rows(project: Project) -> list[AnnotatorRow]:
    """Active members who rank or are meant to, at most 200: those who hold a task first, then whoever was seen last.

    Reviewers and managers who have not ranked are left out.
    """
    members = list(
        Membership.objects.filter(project=project, deactivated_at=None)
        .exclude(role=Role.VIEWER)
        .exclude(user__kind__in=[User.Kind.IMPORTED, User.Kind.EXAMPLE])
        .select_related("user")
        .order_by("user__username")[:ROWS]
    )
    people = [member.user_id for member in members]
    work, skips, leases = _work(project, people), _skips(project), _leases(project)
    counts = dict(
        Slot.objects.filter(project=project, state=Slot.State.DONE, holder__in=people)
        .values_list("holder")
        .annotate(Count("pk"))
    )
    recent = dict(_made_here(project).values_list("annotator").annotate(Count("pk")))
    rows = []
    for member in members:
        pk = member.user_id
        median, last_ranking = work.get(pk, (None, None))
        skipped, skipped_lately, last_skip = skips.get(pk, (0, 0, None))
        held = leases.get(pk, [])
        seen = [last_ranking, last_skip, member.user.last_login, *(lease.seen for lease in held)]
        row = AnnotatorRow(
            membership=member,
            done=counts.get(pk, 0),
            recent_done=recent.get(pk, 0),
            median_seconds=median,
            last_seen=max((instant for instant in seen if instant), default=None),
            skips=skipped,
            recent_skips=skipped_lately,
            leases=held,
        )
        if member.role == Role.ANNOTATOR or row.done or row.skips or held:
            rows.append(row)
    never = timezone.now() - timedelta(days=36_500)
    return sorted(rows, key=lambda row: (bool(row.leases), row.last_seen or never), reverse=True)


def _work(project: Project, people: Sequence[int]) -> dict[int, tuple[float | None, datetime | None]]:
    """By person: the median time of their last 200 rankings, and the instant of the last."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT person.id, lately.median, lately.last FROM unnest(%s::bigint[]) AS person(id), LATERAL (
                   SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS median, max(submitted_at) AS last
                   FROM (SELECT seconds, submitted_at FROM annotate_ranking
                         WHERE project_id = %s AND annotator_id = person.id AND revision = 1
                         ORDER BY submitted_at DESC LIMIT %s) ranking
               ) lately""",
            [list(people), project.pk, MEDIAN_OVER],
        )
        return {row[0]: (row[1], row[2]) for row in cursor.fetchall()}


def _skips(project: Project) -> dict[int, tuple[int, int, datetime | None]]:
    recent = Count("pk", filter=Q(created_at__gte=Now() - timedelta(days=PACE_DAYS)))
    rows = Skip.objects.filter(project=project).values_list("annotator")
    return {row[0]: row[1:] for row in rows.annotate(Count("pk"), recent=recent, last=Max("created_at"))}


def _leases(project: Project) -> dict[int, list[OpenLease]]:
    found: dict[int, list[OpenLease]] = {}
    now, time = timezone.now(), timedelta(seconds=project.lease_seconds)
    slots = Slot.objects.filter(project=project, state=Slot.State.LEASED).select_related("lease")
    for slot in slots.order_by("lease__leased_at"):
        assert slot.lease is not None and slot.expires_at is not None and slot.holder_id is not None
        # A lease is given its full time again at each sign of life.
        seen = max(slot.lease.leased_at, slot.expires_at - time)
        lease = OpenLease(task=slot.task_id, since=slot.lease.leased_at, seen=seen, over=slot.expires_at < now)
        found.setdefault(slot.holder_id, []).append(lease)
    return found
