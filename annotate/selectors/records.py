"""Native records out of the database: the one form in which rankings leave annotate.

Reading is by keyset over the feed, a page at a time, each page a dozen queries in autocommit: whatever the size of the
project, memory stays level and no transaction stays open.
"""

import hashlib
import hmac
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db.models import Model, Q, QuerySet, prefetch_related_objects

from annotate.interchange.native import VERSION, canonical, instant_text
from annotate.models import (
    Change,
    Demonstration,
    Entry,
    Membership,
    Project,
    Prompt,
    Ranking,
    RankingTask,
    Response,
    TaskResponse,
)
from annotate.preferences import normalise_split_text

PAGE = 500
PSEUDONYM_CHARACTERS = 20
RANKED = (Change.Kind.RANKING, Change.Kind.REVISION)


def pseudonym_of(project: Project, user_id: int, *, key: str = "") -> str:
    """Stands for a person in everything that leaves: the same throughout a project, another in every other.

    Under an export key it is another one, the same for the same key.
    """
    name = f"user {user_id}" if not key else f"key {key}\nuser {user_id}"
    digest = hmac.new(bytes.fromhex(project.pseudonym_key), name.encode(), hashlib.sha256)
    return digest.hexdigest()[:PSEUDONYM_CHARACTERS]


@dataclass(frozen=True, slots=True)
class RankingFilter:
    """Which rankings are wanted; None means any. `counted`: only those that count towards their task's overlap."""

    counted: bool = False
    kinds: tuple[str, ...] | None = None
    annotator_kinds: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None


ALL_RANKINGS = RankingFilter()


# --- the feed ---------------------------------------------------------------------------------------------------------


def records_since(
    project: Project,
    *,
    after_change: int = 0,
    up_to_change: int,
    wanted: RankingFilter = ALL_RANKINGS,
    markers: bool = False,
    key: str = "",
) -> Iterator[dict[str, Any]]:
    """Yields the rankings that were written after one change and are current at another, in the order of the feed.

    A ranking that was superseded at or before `up_to_change`, or is withdrawn, is not yielded. With `markers`, a line
    of type `superseded` or `withdrawn` says which earlier line is taken back; a reader that starts at 0 needs none.
    `key` is that of the annotators' pseudonyms. Equal questions give equal records, unless something was withdrawn in
    between.
    """
    builder = _RecordBuilder(project, up_to_change=up_to_change, wanted=wanted, key=key)
    kinds = (*RANKED, Change.Kind.WITHDRAWAL) if markers else RANKED
    feed = Change.objects.filter(project=project, kind__in=kinds, number__lte=up_to_change).order_by("number")
    last = after_change
    while True:
        page = list(feed.filter(number__gt=last)[:PAGE])
        yield from builder.build(page, markers=markers)
        if len(page) < PAGE:
            return
        last = page[-1].number


def rankings_by_task(
    project: Project, *, up_to_change: int, wanted: RankingFilter = ALL_RANKINGS, key: str = ""
) -> Iterator[list[dict[str, Any]]]:
    """Yields the rankings of each task that are current at a change, as records_since has them; tasks in their order.

    Read by keyset, `PAGE` tasks at a time; tasks without a wanted ranking are passed over.
    """
    builder = _RecordBuilder(project, up_to_change=up_to_change, wanted=wanted, key=key)
    tasks = RankingTask.objects.filter(project=project).order_by("pk")
    if wanted.kinds is not None:
        tasks = tasks.filter(kind__in=wanted.kinds)
    last = 0
    while page := list(tasks.filter(pk__gt=last).values_list("pk", flat=True)[:PAGE]):
        last = page[-1]
        rankings = list(Ranking.objects.filter(task__in=page, withdrawn_at=None).values_list("pk", flat=True))
        changes = Change.objects.filter(ranking__in=rankings, kind__in=RANKED, number__lte=up_to_change)
        by_task: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for record in builder.build(list(changes.order_by("number")), markers=False):
            by_task[record["task"]].append(record)
        yield from (by_task[str(task)] for task in page if str(task) in by_task)


# --- records ----------------------------------------------------------------------------------------------------------


class _RecordBuilder:
    """Makes records of pages of changes.

    Everything is fetched by ids, ten queries a page: joins of these tables, planned on the thin statistics after a
    large import, have been seen to read a whole table for every page.
    """

    def __init__(self, project: Project, *, up_to_change: int, wanted: RankingFilter, key: str) -> None:
        self.project = project
        self._key = key
        self._up_to = up_to_change
        self._wanted = wanted
        unusual = Membership.objects.filter(project=project).exclude(weight=1.0)
        self._weights = dict(unusual.values_list("user_id", "weight"))

    def build(self, page: Sequence[Change], *, markers: bool) -> Iterator[dict[str, Any]]:
        changes = [change for change in page if change.ranking_id is not None]
        prefetch_related_objects(
            changes, "ranking__annotator", "ranking__version", "ranking__task__prompt__split_group"
        )
        current = self._current(changes)
        rankings = [_ranking(change) for change in current.values()]
        tiers = _tiers_of(rankings)
        responses = _responses_of({ranking.task_id for ranking in rankings})
        for change in changes:
            if markers and change.kind != Change.Kind.RANKING:
                yield self._marker(change)
            if change.pk in current:
                ranking = _ranking(change)
                shown = responses[ranking.task_id]
                # Withdrawn since this page was read: its texts are gone.
                if all(response.withdrawn_at is None for response in shown):
                    yield self._record(change, ranking, shown, tiers[ranking.pk])

    def _current(self, changes: Sequence[Change]) -> dict[int, Change]:
        """Those that wrote a ranking which still stands at the window's end, and is wanted, by id."""
        written = [change for change in changes if change.kind in RANKED]
        superseded = set(
            Change.objects.filter(
                ranking__supersedes__in=[change.ranking_id for change in written],
                kind=Change.Kind.REVISION,
                number__lte=self._up_to,
            ).values_list("ranking__supersedes_id", flat=True)
        )
        return {
            change.pk: change
            for change in written
            if change.ranking_id not in superseded and self._wants(_ranking(change))
        }

    def _wants(self, ranking: Ranking) -> bool:
        wanted, prompt = self._wanted, ranking.task.prompt
        return (
            ranking.withdrawn_at is None
            and prompt.withdrawn_at is None
            and (ranking.counted or not wanted.counted)
            and (wanted.kinds is None or ranking.task.kind in wanted.kinds)
            and (wanted.annotator_kinds is None or ranking.annotator.kind in wanted.annotator_kinds)
            and (wanted.splits is None or prompt.split_group.split in wanted.splits)
        )

    def _marker(self, change: Change) -> dict[str, Any]:
        """What takes an earlier line back."""
        ranking = _ranking(change)
        marker: dict[str, Any] = {
            "format": VERSION,
            "project": self.project.slug,
            "task": str(ranking.task_id),
            "external_id": ranking.task.prompt.external_id,
        }
        if change.kind == Change.Kind.WITHDRAWAL:
            marker |= {"type": "withdrawn", "id": str(ranking.pk)}
        else:
            marker |= {"type": "superseded", "id": str(ranking.supersedes_id), "superseded_by": str(ranking.pk)}
        return canonical(marker | {"change": change.number})

    def _record(
        self, change: Change, ranking: Ranking, responses: Sequence[Response], tiers: Mapping[int, int | None]
    ) -> dict[str, Any]:
        task, prompt = ranking.task, ranking.task.prompt
        keys = {response.pk: response.key for response in responses}
        said = ranking.extra
        record = dict(said) | _head(self.project, prompt) | {
            "id": str(ranking.pk),
            "task": str(task.pk),
            "kind": task.kind,
            "counted": ranking.counted,
            "responses": [_response_object(response) for response in responses],
            "ranking": _tiers(tiers, keys),
            "unranked": [key for pk, key in keys.items() if tiers[pk] is None],
            "strengths": ranking.strengths,
            "all_bad": ranking.all_bad,
            "ratings": _by_key(ranking.ratings, keys),
            "flags": _by_key(ranking.flags, keys),
            "rationale": ranking.rationale,
            "rewrite": _rewrite(ranking, keys),
            "annotator": pseudonym_of(self.project, ranking.annotator_id, key=self._key),
            "annotator_kind": ranking.annotator.kind,
            "weight": said.get("weight", 1.0) * self._weights.get(ranking.annotator_id, 1.0),
            "revision": said.get("revision", ranking.revision),
            "guideline_version": _guideline_version(ranking),
            "presented_order": [keys[pk] for pk in ranking.presented_order] or None,
            "seconds": ranking.seconds,
            "change": change.number,
            "submitted_at": instant_text(ranking.submitted_at),
        }  # fmt: skip
        return canonical(record)


def _ranking(change: Change) -> Ranking:
    assert change.ranking is not None
    return change.ranking


def _tiers_of(rankings: Sequence[Ranking]) -> dict[int, dict[int, int | None]]:
    """Ranking id → response id → tier."""
    found: dict[int, dict[int, int | None]] = defaultdict(dict)
    rows = Entry.objects.filter(ranking__in=[ranking.pk for ranking in rankings])
    for ranking, response, tier in rows.values_list("ranking_id", "response_id", "tier"):
        found[ranking][response] = tier
    return found


def _responses_of(tasks: Iterable[int]) -> dict[int, list[Response]]:
    """Task id → its responses in the order in which they came."""
    found: dict[int, list[Response]] = defaultdict(list)
    rows = TaskResponse.objects.filter(task__in=tasks).prefetch_related("response").order_by("response_id")
    for row in rows:
        found[row.task_id].append(row.response)
    return found


def _head(project: Project, prompt: Prompt) -> dict[str, Any]:
    """What every kind of line says about its prompt."""
    return {
        "format": VERSION,
        "project": project.slug,
        "external_id": prompt.external_id,
        "split_group": _split_group(prompt),
        "split": prompt.split_group.split,
        "prompt": prompt.messages,
    }


def _split_group(prompt: Prompt) -> str:
    """The group's key. That of a group named by its first user message is not stored but made from the message."""
    group = prompt.split_group
    made = normalise_split_text(prompt.messages)
    if group.key or hashlib.sha256(made.encode()).hexdigest() != group.key_sha256:
        return group.key or f"sha256:{group.key_sha256}"
    return made


def _response_object(response: Response) -> dict[str, Any]:
    found = dict(response.extra) | {
        "id": response.key,
        "text": response.text,
        "thinking": response.thinking,
        "model": response.model or None,
    }
    if response.settings:
        found["settings"] = response.settings
    known = {key: found.pop(key) for key in ("id", "text", "thinking", "model", "settings") if key in found}
    return known | {key: found[key] for key in sorted(found)}


def _tiers(tiers: Mapping[int, int | None], keys: Mapping[int, str]) -> list[list[str]]:
    """Tiers best first; within a tier in the order of the responses, which says nothing."""
    placed = sorted({tier for tier in tiers.values() if tier is not None})
    return [[key for pk, key in keys.items() if tiers[pk] == tier] for tier in placed]


def _by_key(values: Mapping[str, Any], keys: Mapping[int, str]) -> dict[str, Any]:
    """Stored per response id, said per response key, in the order of the responses."""
    return {key: values[str(pk)] for pk, key in keys.items() if str(pk) in values}


def _rewrite(ranking: Ranking, keys: Mapping[int, str]) -> dict[str, str] | None:
    if ranking.rewrite_of_id is None or ranking.rewrite_text is None:
        return None
    return {"of": keys[ranking.rewrite_of_id], "text": ranking.rewrite_text}


def _guideline_version(ranking: Ranking) -> int | None:
    """The rules that the annotator saw: ours, or those that an import names; ours mean nothing to an import."""
    if ranking.source == Ranking.Source.IMPORT:
        found: int | None = ranking.extra.get("guideline_version")
        return found
    return ranking.version.number


# --- lines that are no rankings ---------------------------------------------------------------------------------------


def demonstration_records(project: Project, *, splits: tuple[str, ...] | None = None) -> Iterator[dict[str, Any]]:
    """Yields the demonstrations that are not withdrawn, in the order in which they came."""
    found = Demonstration.objects.filter(project=project, withdrawn_at=None, prompt__withdrawn_at=None)
    found = found.filter(prompt__split_group__split__in=splits) if splits is not None else found
    for demonstration in _by_id(found.select_related("prompt__split_group")):
        head = dict(demonstration.prompt.extra) | _head(project, demonstration.prompt)
        own = {"type": "demonstration", "id": f"d{demonstration.pk}", "response": demonstration.text}
        yield canonical(head | own)


def prompt_records(project: Project, *, splits: tuple[str, ...] | None = None) -> Iterator[dict[str, Any]]:
    """Yields the prompts that came without responses, unless only as a demonstration's, in the order of coming."""
    bare = Q(demonstrations=None) | Q(answer__isnull=False) | Q(tests__isnull=False)
    found = Prompt.objects.filter(bare, project=project, withdrawn_at=None, responses=None)
    found = found.filter(split_group__split__in=splits) if splits is not None else found
    for prompt in _by_id(found.select_related("split_group")):
        head = dict(prompt.extra) | _head(project, prompt) | {"type": "prompt", "id": f"p{prompt.pk}"}
        checked = {"answer": prompt.answer, "tests": prompt.tests}
        yield canonical(head | {key: value for key, value in checked.items() if value is not None})


M = TypeVar("M", bound=Model)


def _by_id(found: QuerySet[M]) -> Iterator[M]:
    last = 0
    while page := list(found.filter(pk__gt=last).order_by("pk").distinct()[:PAGE]):
        last = page[-1].pk
        yield from page
