"""Tasks and what was said about them, for reviewers and managers. A page looks at a bounded number of rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Count, Exists, F, Func, OuterRef, Prefetch, Q, QuerySet, TextField, Value

from annotate.errors import NotFound
from annotate.models import (
    Entry,
    IdentityLeak,
    Project,
    Prompt,
    Ranking,
    RankingTask,
    Role,
    Skip,
    Slot,
    TaskFlag,
    TaskResponse,
    User,
)
from annotate.selectors.projects import get_project_for
from annotate.selectors.reviews import unreviewed, with_reviews

PAGE = 25
#: Where a filter has no index, one page looks at so many tasks and then says how far it came.
WINDOW = 10_000
LIST = 20
LETTERS = "ABCDEFGHI"
OPEN, HELD, CLOSED = RankingTask.State.OPEN, RankingTask.State.HELD, RankingTask.State.CLOSED
DONE = "done"
BEGINNING_CHARACTERS = 280


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks are wanted. `state`: open (and not done), held, closed, done, or all if empty; `unreviewed`: with a
    ranking that nobody has reviewed; `text`: an external id, or words of the prompt."""

    state: str = ""
    flagged: bool = False
    leaking: bool = False
    unreviewed: bool = False
    annotator: int | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """One revision of an answer, in the letters of its task."""

    ranking: Ranking
    tiers: Sequence[Sequence[str]]
    unranked: Sequence[str]
    edited: str | None


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task with what was said about it. `letters`: response id → letter, in the order of the responses' keys."""

    task: RankingTask
    beginning: str
    letters: Mapping[int, str]
    done: int
    said: Sequence[Said]
    flags: Sequence[TaskFlag]
    skips: Sequence[Skip]
    leaks: int


@dataclass(frozen=True, slots=True)
class TaskPage:
    """`after` leads to the next page, None on the last. `looked_at`: the page ended before it was full, because so many
    tasks had been looked through."""

    rows: Sequence[TaskRow]
    after: int | None
    looked_at: int | None = None


@dataclass(slots=True)
class Lists:
    """What waits for a manager: at most 20 of each kind, and how many there are in all."""

    held: Sequence[TaskRow] = field(default_factory=list)
    flagged: Sequence[TaskRow] = field(default_factory=list)
    held_count: int = 0
    flagged_count: int = 0


def get_task_for(user: User, slug: str, task_id: int, *, role: Role = Role.REVIEWER) -> RankingTask:
    """A task of a project in which the user has at least this role.

    Raises:
        NotFound, Forbidden: as get_project_for; or the project has no such task.
    """
    project = get_project_for(user, slug, role=role)
    found = RankingTask.objects.select_related("project", "prompt").filter(pk=task_id, project=project).first()
    if found is None:
        raise NotFound("There is no such task.")
    return found


def holders_of(task: RankingTask) -> list[User]:
    """Who has the task open now, by name."""
    held = Slot.objects.filter(task=task, state=Slot.State.LEASED).values("holder")
    return list(User.objects.filter(pk__in=held).order_by("username"))


# --- lists ------------------------------------------------------------------------------------------------------------


def browse_tasks(project: Project, wanted: TaskFilter, *, after: int = 0) -> TaskPage:
    """The next tasks with a greater id than `after`, in the order of their ids."""
    indexed = _by_index(project, wanted).filter(pk__gt=after).order_by("pk")
    slow = _without_index(project, wanted)
    ends = list(indexed.values_list("pk", flat=True)[WINDOW - 1 : WINDOW]) if slow else []
    found = indexed.filter(slow) if slow else indexed
    found = found.filter(pk__lte=ends[0]) if ends else found
    tasks = list(found.select_related("project", "prompt")[: PAGE + 1])
    if len(tasks) > PAGE:
        return TaskPage(task_rows(tasks[:PAGE]), after=tasks[PAGE - 1].pk)
    further = bool(ends) and indexed.filter(pk__gt=ends[0]).exists()
    return TaskPage(task_rows(tasks), after=ends[0] if further else None, looked_at=WINDOW if further else None)


def tasks_to_settle(project: Project) -> Lists:
    """Held tasks, and tasks with open flags that are not held."""
    tasks = RankingTask.objects.filter(project=project, prompt__withdrawn_at=None)
    held = tasks.filter(state=HELD)
    flagged = tasks.filter(pk__in=_flagged(project)).exclude(state=HELD)
    return Lists(
        held=task_rows(held.select_related("project", "prompt").order_by("pk")[:LIST]),
        flagged=task_rows(flagged.select_related("project", "prompt").order_by("pk")[:LIST]),
        held_count=held.count(),
        flagged_count=flagged.count(),
    )


def _by_index(project: Project, wanted: TaskFilter) -> QuerySet[RankingTask]:
    """What an index finds, whatever the size of the project."""
    tasks = RankingTask.objects.filter(project=project)
    if wanted.state in {HELD, CLOSED}:
        tasks = tasks.filter(state=wanted.state)
    if wanted.flagged:
        tasks = tasks.filter(pk__in=_flagged(project))
    if wanted.leaking:
        leaks = IdentityLeak.objects.filter(project=project, settled_at=None)
        tasks = tasks.filter(pk__in=TaskResponse.objects.filter(response__identity_leak__in=leaks).values("task"))
    if wanted.annotator is not None:
        made = Ranking.objects.filter(project=project, annotator=wanted.annotator, revision=1)
        tasks = tasks.filter(pk__in=made.values("task"))
    if wanted.text and (named := _prompt_named(project, wanted.text)):
        tasks = tasks.filter(prompt=named)
    return tasks


def _without_index(project: Project, wanted: TaskFilter) -> Q | None:
    """What must be looked up task by task; None if nothing."""
    conditions = []
    places = Slot.objects.filter(task=OuterRef("pk"), beyond_overlap=False)
    to_do = Exists(places.exclude(state=Slot.State.DONE))
    if wanted.state == OPEN:
        conditions.append(Q(to_do, state=OPEN))
    elif wanted.state == DONE:
        conditions.append(Q(~to_do, Exists(Ranking.objects.filter(task=OuterRef("pk"))), state=OPEN))
    if wanted.unreviewed:
        conditions.append(Q(Exists(unreviewed(project).filter(task=OuterRef("pk")))))
    if wanted.text and not _prompt_named(project, wanted.text):
        conditions.append(Q(Exists(_prompts_saying(wanted.text))))
    if not conditions:
        return None
    whole = conditions[0]
    for condition in conditions[1:]:
        whole &= condition
    return whole


def _prompt_named(project: Project, text: str) -> Prompt | None:
    return Prompt.objects.filter(project=project, external_id=text).only("pk").first()


def _prompts_saying(text: str) -> QuerySet[Prompt]:
    contents = Func(
        F("messages"),
        Value("$[*].content"),
        function="jsonb_path_query_array",
        template="%(function)s(%(expressions)s)::text",
        output_field=TextField(),
    )
    prompts = Prompt.objects.filter(pk=OuterRef("prompt")).annotate(contents=contents)
    return prompts.filter(Q(contents__icontains=_as_json(text)) | Q(external_id__icontains=text))


def _as_json(text: str) -> str:
    """As a JSON text holds it."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")


def _flagged(project: Project) -> QuerySet[TaskFlag, Any]:
    return TaskFlag.objects.filter(task__project=project, settled_at=None).values("task")


# --- rows -------------------------------------------------------------------------------------------------------------


def task_rows(tasks: Iterable[RankingTask]) -> list[TaskRow]:
    """The tasks with what was said last about each, skips, open flags and leaks, in eight queries."""
    found = list(tasks)
    ids = [task.pk for task in found]
    letters = letters_of(ids)
    said: dict[int, list[Said]] = {pk: [] for pk in ids}
    last = Ranking.objects.filter(task__in=ids, superseded_by=None)
    for one in say(last, letters):
        said[one.ranking.task_id].append(one)
    filled = Slot.objects.filter(task__in=ids, state=Slot.State.DONE, beyond_overlap=False)
    done = dict(filled.values_list("task").annotate(Count("pk")))
    flags: dict[int, list[TaskFlag]] = {pk: [] for pk in ids}
    for flag in TaskFlag.objects.filter(task__in=ids, settled_at=None).select_related("annotator").order_by("pk"):
        flags[flag.task_id].append(flag)
    skips: dict[int, list[Skip]] = {pk: [] for pk in ids}
    for skip in Skip.objects.filter(task__in=ids).select_related("annotator").order_by("pk"):
        skips[skip.task_id].append(skip)
    leaks = dict(
        TaskResponse.objects.filter(task__in=ids, response__identity_leak__settled_at=None)
        .filter(response__identity_leak__isnull=False)
        .values_list("task")
        .annotate(Count("pk"))
    )
    return [
        TaskRow(
            task=task,
            beginning=beginning_of(task.prompt),
            letters=letters[task.pk],
            done=done.get(task.pk, 0),
            said=said[task.pk],
            flags=flags[task.pk],
            skips=skips[task.pk],
            leaks=leaks.get(task.pk, 0),
        )
        for task in found
    ]


def history_of(task: RankingTask) -> list[Said]:
    """Every revision of every answer to a task: by first answer, and within one the last revision first."""
    letters = letters_of([task.pk])
    said = say(Ranking.objects.filter(task=task), letters)
    first: dict[int, int] = {}
    for one in said:
        annotator = one.ranking.annotator_id
        first[annotator] = min(first.get(annotator, one.ranking.pk), one.ranking.pk)
    return sorted(said, key=lambda one: (first[one.ranking.annotator_id], -one.ranking.revision))


def letters_of(tasks: Sequence[int]) -> dict[int, dict[int, str]]:
    """Task id → response id → its letter: A is the response whose key comes first."""
    rows = TaskResponse.objects.filter(task__in=tasks).order_by("task", "response__key", "response_id")
    found: dict[int, dict[int, str]] = {pk: {} for pk in tasks}
    for task, response in rows.values_list("task_id", "response_id"):
        found[task][response] = LETTERS[len(found[task])]
    return found


def say(rankings: QuerySet[Ranking], letters: Mapping[int, Mapping[int, str]]) -> list[Said]:
    """These rankings in the letters of their tasks, in the order of their ids."""
    entries = Prefetch("entries", queryset=Entry.objects.order_by("tier"))
    loaded = rankings.select_related("annotator", "version", "superseded_by").order_by("pk")
    loaded = loaded.prefetch_related(entries, with_reviews())
    return [_said(ranking, letters[ranking.task_id]) for ranking in loaded]


def _said(ranking: Ranking, letters: Mapping[int, str]) -> Said:
    tiers: dict[int, list[str]] = {}
    unranked: list[str] = []
    for entry in ranking.entries.all():
        place = unranked if entry.tier is None else tiers.setdefault(entry.tier, [])
        place.append(letters[entry.response_id])
    edited = letters[ranking.rewrite_of_id] if ranking.rewrite_of_id is not None else None
    return Said(ranking, [sorted(tiers[number]) for number in sorted(tiers)], sorted(unranked), edited)


def beginning_of(prompt: Prompt) -> str:
    """The first characters of what is to be answered: the last turn. Empty for a withdrawn prompt."""
    text = prompt.messages[-1]["content"] if prompt.messages else ""
    flat = " ".join(text[: 4 * BEGINNING_CHARACTERS].split())
    return flat if len(flat) <= BEGINNING_CHARACTERS else flat[: BEGINNING_CHARACTERS - 1].rstrip() + "…"


def flags_of(task: RankingTask) -> list[TaskFlag]:
    """Every flag on the task, settled ones too."""
    return list(TaskFlag.objects.filter(task=task).select_related("annotator", "settled_by").order_by("pk"))


def leaks_of(task: RankingTask) -> list[IdentityLeak]:
    """Responses of the task that give away their maker."""
    responses = TaskResponse.objects.filter(task=task).values("response")
    return list(IdentityLeak.objects.filter(response__in=responses).order_by("response_id"))
