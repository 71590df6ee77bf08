"""Native records made of pages of the feed: what of the database a record says, and under which names."""

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from annotate.interchange.native import VERSION, canonical, instant_text
from annotate.models import Change, Membership, Project, ProjectVersion, Prompt, Ranking, SplitGroup, User
from annotate.preferences import normalise_split_text
from annotate.selectors.record_rows import (
    ChangeRow,
    GroupRow,
    PromptRow,
    RankingRow,
    ResponseRow,
    TaskRow,
    by_id,
    responses_of,
    superseded_by,
    tiers_of,
)
from annotate.selectors.reviews import accepted_among

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
    """Which rankings are wanted; None means any. `counted`: only those that count towards their task's overlap;
    `reviewed`: only those that the last review before the window's end accepted."""

    counted: bool = False
    kinds: tuple[str, ...] | None = None
    annotator_kinds: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None
    reviewed: bool = False


ALL_RANKINGS = RankingFilter()


# --- records ----------------------------------------------------------------------------------------------------------


class RecordBuilder:
    """Makes records of pages of changes: eight queries a page, and two more for whom or what it meets first."""

    def __init__(self, project: Project, *, up_to_change: int, wanted: RankingFilter, key: str) -> None:
        self.project = project
        self._key = key
        self._up_to = up_to_change
        self._wanted = wanted
        unusual = Membership.objects.filter(project=project).exclude(weight=1.0)
        self._weights = dict(unusual.values_list("user_id", "weight"))
        self._kinds: dict[int, str] = {}
        self._pseudonyms: dict[int, str] = {}
        self._versions: dict[int, int] = {}

    def build(self, page: Sequence[ChangeRow], *, markers: bool) -> Iterator[dict[str, Any]]:
        rankings = by_id(RankingRow, {change.ranking_id for change in page})
        tasks = by_id(TaskRow, {ranking.task_id for ranking in rankings.values()})
        prompts = by_id(PromptRow, {task.prompt_id for task in tasks.values()})
        groups = by_id(GroupRow, {prompt.split_group_id for prompt in prompts.values()})
        self._meet(rankings.values())
        current = self._current(page, rankings, tasks, prompts, groups)
        tiers = tiers_of(current)
        shown = _shown_of(responses_of({rankings[pk].task_id for pk in current}))
        heads = {pk: head_of(self.project, prompt, groups[prompt.split_group_id]) for pk, prompt in prompts.items()}
        for change in page:
            ranking = rankings[change.ranking_id]
            task = tasks[ranking.task_id]
            prompt = prompts[task.prompt_id]
            if markers and change.kind != Change.Kind.RANKING:
                yield self._marker(change, ranking, prompt)
            # None where a response was withdrawn since this page was read: its texts are gone.
            responses = shown.get(task.id)
            if change.kind in RANKED and ranking.id in current and responses is not None:
                yield self._record(change, ranking, task, heads[prompt.id], responses, tiers[ranking.id])

    def _meet(self, rankings: Iterable[RankingRow]) -> None:
        """Looks up annotators and versions that no page had before; a project has few of either."""
        people = {ranking.annotator_id for ranking in rankings} - self._kinds.keys()
        if people:
            self._kinds |= dict(User.objects.filter(pk__in=people).values_list("pk", "kind"))
            self._pseudonyms |= {pk: pseudonym_of(self.project, pk, key=self._key) for pk in people}
        versions = {ranking.version_id for ranking in rankings} - self._versions.keys()
        if versions:
            self._versions |= dict(ProjectVersion.objects.filter(pk__in=versions).values_list("pk", "number"))

    def _current(
        self,
        page: Sequence[ChangeRow],
        rankings: Mapping[int, RankingRow],
        tasks: Mapping[int, TaskRow],
        prompts: Mapping[int, PromptRow],
        groups: Mapping[int, GroupRow],
    ) -> set[int]:
        """The rankings written here that still stand at the window's end, and are wanted."""
        written = {change.ranking_id for change in page if change.kind in RANKED}
        superseded = superseded_by(written, up_to_change=self._up_to)
        found = set()
        for pk in written - superseded:
            task = tasks[rankings[pk].task_id]
            prompt = prompts[task.prompt_id]
            if self._wants(rankings[pk], task, prompt, groups[prompt.split_group_id]):
                found.add(pk)
        return accepted_among(found, up_to_change=self._up_to) if self._wanted.reviewed else found

    def _wants(self, ranking: RankingRow, task: TaskRow, prompt: PromptRow, group: GroupRow) -> bool:
        wanted = self._wanted
        return (
            ranking.withdrawn_at is None
            and prompt.withdrawn_at is None
            and (ranking.counted or not wanted.counted)
            and (wanted.kinds is None or task.kind in wanted.kinds)
            and (wanted.annotator_kinds is None or self._kinds[ranking.annotator_id] in wanted.annotator_kinds)
            and (wanted.splits is None or group.split in wanted.splits)
        )

    def _marker(self, change: ChangeRow, ranking: RankingRow, prompt: PromptRow) -> dict[str, Any]:
        """What takes an earlier line back."""
        marker: dict[str, Any] = {
            "format": VERSION,
            "project": self.project.slug,
            "task": str(ranking.task_id),
            "external_id": prompt.external_id,
        }
        if change.kind == Change.Kind.WITHDRAWAL:
            marker |= {"type": "withdrawn", "id": str(ranking.id)}
        else:
            marker |= {"type": "superseded", "id": str(ranking.supersedes_id), "superseded_by": str(ranking.id)}
        return canonical(marker | {"change": change.number})

    def _record(
        self,
        change: ChangeRow,
        ranking: RankingRow,
        task: TaskRow,
        head: dict[str, Any],
        shown: "_Shown",
        tiers: Mapping[int, int | None],
    ) -> dict[str, Any]:
        keys = shown.keys
        said = ranking.extra
        record = dict(said) | head | {
            "id": str(ranking.id),
            "task": str(task.id),
            "kind": task.kind,
            "counted": ranking.counted,
            "responses": shown.responses,
            "ranking": _tiers(tiers, keys),
            "unranked": [key for pk, key in keys.items() if tiers[pk] is None],
            "strengths": ranking.strengths,
            "all_bad": ranking.all_bad,
            "ratings": _by_key(ranking.ratings, keys),
            "flags": _by_key(ranking.flags, keys),
            "rationale": ranking.rationale,
            "rewrite": _rewrite(ranking, keys),
            "annotator": self._pseudonyms[ranking.annotator_id],
            "annotator_kind": self._kinds[ranking.annotator_id],
            "weight": said.get("weight", 1.0) * self._weights.get(ranking.annotator_id, 1.0),
            "revision": said.get("revision", ranking.revision),
            "guideline_version": self._guideline_version(ranking),
            "presented_order": [keys[pk] for pk in ranking.presented_order] or None,
            "seconds": ranking.seconds,
            "change": change.number,
            "submitted_at": instant_text(ranking.submitted_at),
        }  # fmt: skip
        return canonical(record)

    def _guideline_version(self, ranking: RankingRow) -> int | None:
        """The rules that the annotator saw: ours, or those that an import names; ours mean nothing to an import."""
        if ranking.source == Ranking.Source.IMPORT:
            found: int | None = ranking.extra.get("guideline_version")
            return found
        return self._versions[ranking.version_id]


class _Shown(NamedTuple):
    """The responses of a task, made once for all its rankings on a page; whoever is given them changes nothing."""

    keys: dict[int, str]
    responses: list[dict[str, Any]]


def _shown_of(responses: Mapping[int, Sequence[ResponseRow]]) -> dict[int, _Shown]:
    """Task id → its responses, of the tasks of which none is withdrawn."""
    return {
        task: _Shown({one.id: one.key for one in rows}, [_response_object(one) for one in rows])
        for task, rows in responses.items()
        if all(one.withdrawn_at is None for one in rows)
    }


def head_of(project: Project, prompt: PromptRow | Prompt, group: GroupRow | SplitGroup) -> dict[str, Any]:
    """What every kind of line says about its prompt."""
    return {
        "format": VERSION,
        "project": project.slug,
        "external_id": prompt.external_id,
        "split_group": _split_group(prompt, group),
        "split": group.split,
        "prompt": prompt.messages,
    }


def _split_group(prompt: PromptRow | Prompt, group: GroupRow | SplitGroup) -> str:
    """The group's key. That of a group named by its first user message is not stored but made from the message."""
    if group.key:
        return group.key
    made = normalise_split_text(prompt.messages)
    return made if hashlib.sha256(made.encode()).hexdigest() == group.key_sha256 else f"sha256:{group.key_sha256}"


def _response_object(response: ResponseRow) -> dict[str, Any]:
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
    return {key: values[str(pk)] for pk, key in keys.items() if str(pk) in values} if values else {}


def _rewrite(ranking: RankingRow, keys: Mapping[int, str]) -> dict[str, str] | None:
    if ranking.rewrite_of_id is None or ranking.rewrite_text is None:
        return None
    return {"of": keys[ranking.rewrite_of_id], "text": ranking.rewrite_text}
