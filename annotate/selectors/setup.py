"""What a manager sees while setting a project up: versions of its rules, who works under which, who has read them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Min, Q, QuerySet
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from annotate.errors import NotFound
from annotate.models import (
    Membership,
    Project,
    ProjectVersion,
    Prompt,
    Ranking,
    RankingTask,
    ReadingReceipt,
    Response,
    Role,
    Slot,
)


@dataclass(frozen=True, slots=True)
class OpenLeases:
    """Tasks that people hold under one version of the rules."""

    version: int
    people: int
    tasks: int


def open_leases(project: Project) -> list[OpenLeases]:
    """Who works under which version now, latest first; leases that ran out do not count."""
    rows = (
        Slot.objects.filter(project=project, state=Slot.State.LEASED, expires_at__gt=Now())
        .values("version__number")
        .annotate(people=Count("holder", distinct=True), tasks=Count("pk"))
        .order_by("-version__number")
    )
    return [OpenLeases(row["version__number"], row["people"], row["tasks"]) for row in rows]


def versions_of(project: Project) -> list[ProjectVersion]:
    """Every version of the project's rules, latest first."""
    return list(project.versions.select_related("created_by").order_by("-number"))


def rankings_by_version(project: Project) -> dict[int, int]:
    """How many rankings stand under a version, by its id.

    A revised ranking counts once, under the version of its last revision; imported and withdrawn ones do not count.
    """
    return dict(
        Ranking.objects.filter(project=project, withdrawn_at=None, superseded_by=None)
        .exclude(source=Ranking.Source.IMPORT)
        .values_list("version")
        .annotate(Count("pk"))
    )


def version_of(project: Project, number: int) -> ProjectVersion:
    """The version with this number.

    Raises:
        NotFound: there is none.
    """
    version = project.versions.select_related("created_by").filter(number=number).first()
    if version is None:
        raise NotFound(_("There is no such version."))
    return version


@dataclass(frozen=True, slots=True)
class Reader:
    """A member who may rank, and when they read the guidelines in force; None: not yet."""

    name: str
    role: str
    read_at: datetime | None


def readers(project: Project, version: ProjectVersion) -> list[Reader]:
    """The members who may rank: those who have not read the version's guidelines first, then by when they did.

    A receipt for an earlier version with the same text counts, as for the annotators themselves.
    """
    members = (
        Membership.objects.filter(project=project, deactivated_at=None, user__is_active=True)
        .exclude(role=Role.VIEWER)
        .exclude(user__kind="machine")
        .select_related("user")
        .order_by("user__username")
    )
    same_text = ReadingReceipt.objects.filter(version__project=project, version__guidelines=version.guidelines)
    read = dict(same_text.values_list("user").annotate(Min("read_at")))
    found = [
        Reader(one.user.get_full_name() or one.user.username, one.get_role_display(), read.get(one.user_id))
        for one in members
    ]
    return sorted(found, key=lambda one: (one.read_at is not None, one.read_at and -one.read_at.timestamp()))


@dataclass(frozen=True, slots=True)
class OverlapEffect:
    """What another overlap does to the tasks that exist.

    Attributes:
        more: tasks that get free places, `added` of them in all.
        fewer: tasks that lose free places, `removed` of them in all.
        kept: of the tasks that stay above the new overlap, because more people hold or have ranked them.
    """

    more: int = 0
    added: int = 0
    fewer: int = 0
    removed: int = 0
    kept: int = 0

    @property
    def nothing(self) -> bool:
        return not (self.more or self.fewer)


def tasks_of_other_overlap(project: Project, overlap: int) -> QuerySet[RankingTask]:
    """Tasks that an overlap applied to all would touch: normal ones that are ranked here and not closed."""
    return (
        RankingTask.objects.filter(project=project, kind=RankingTask.Kind.NORMAL, overlap__gt=0)
        .exclude(state=RankingTask.State.CLOSED)
        .exclude(overlap=overlap)
    )


def overlap_effect(project: Project, overlap: int) -> OverlapEffect:
    """What services.overlaps.set_overlap_of_all would do now."""
    taken = Count("slots", filter=~Q(slots__state=Slot.State.FREE) & Q(slots__beyond_overlap=False))
    rows = tasks_of_other_overlap(project, overlap).annotate(taken=taken).values_list("overlap", "taken")
    return effect_of(rows, overlap)


def effect_of(tasks: Iterable[tuple[int, int]], overlap: int) -> OverlapEffect:
    """Sums up over (overlap now, places taken) of each task."""
    more = added = fewer = removed = kept = 0
    for now, taken in tasks:
        least = max(overlap, taken)
        more, added = more + (least > now), added + max(least - now, 0)
        fewer, removed = fewer + (least < now), removed + max(now - least, 0)
        kept += taken > overlap
    return OverlapEffect(more, added, fewer, removed, kept)


def example_task(project: Project) -> tuple[Prompt, list[Response]] | None:
    """What a preview shows: the prompt and the responses of the project's first task that is ranked here, else of its
    first task at all; None if it has none."""
    tasks = RankingTask.objects.filter(project=project, prompt__withdrawn_at=None).select_related("prompt")
    task = tasks.filter(overlap__gt=0).order_by("pk").first() or tasks.order_by("pk").first()
    if task is None:
        return None
    responses = Response.objects.filter(pk__in=task.task_responses.values("response"))
    return task.prompt, list(responses.order_by("pk"))
