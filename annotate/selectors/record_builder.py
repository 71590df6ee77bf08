"""Native records made of pages of the feed: what of the database a record says, and under which names."""

import hashlib
import hmac
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from annotate.interchange.native import VERSION, canonical
from annotate.models import Change, Membership, Project, ProjectVersion, Prompt, Ranking, SplitGroup, User
from annotate.preferences import normalise_split_text
from annotate.selectors.record_rows import (
    RANKED,
    PromptRow,
    RankedRow,
    ResponseRow,
    prompts_of,
    responses_of,
    rows_of_feed,
    rows_of_tasks,
)
from annotate.selectors.reviews import accepted_among

PSEUDONYM_CHARACTERS = 20


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
    """Makes records of pages of changes: three queries a page, and two more for whom or what it meets first."""

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

    def page_of_feed(self, *, after: int, markers: bool, limit: int) -> list[RankedRow]:
        """The next changes that records or markers are made of."""
        kinds = (*RANKED, Change.Kind.WITHDRAWAL) if markers else RANKED
        return rows_of_feed(self.project.pk, after=after, up_to=self._up_to, kinds=kinds, limit=limit)

    def page_of_tasks(self, tasks: Collection[int]) -> list[RankedRow]:
        """The changes that wrote the rankings of these tasks."""
        return rows_of_tasks(tasks, up_to=self._up_to)

    def build(self, page: Sequence[RankedRow], *, markers: bool = False) -> Iterator[dict[str, Any]]:
        """Yields the record of each wanted ranking of the page; with `markers`, what takes earlier lines back, too."""
        prompts = prompts_of({row.prompt_id for row in page})
        self._meet(page)
        wanted = self._wanted_of(page, prompts)
        shown = _shown_of(responses_of({row.task_id for row in page if row.number in wanted}))
        heads = {pk: head_of(self.project, prompt, prompt) for pk, prompt in prompts.items()}
        for row in page:
            if markers and row.kind != Change.Kind.RANKING:
                yield self._marker(row, prompts[row.prompt_id])
            # None where a response was withdrawn since this page was read: its texts are gone.
            if row.number in wanted and (responses := shown.get(row.task_id)) is not None:
                yield self._record(row, heads[row.prompt_id], responses)

    def _meet(self, rows: Iterable[RankedRow]) -> None:
        """Looks up annotators and versions that no page had before; a project has few of either."""
        people = {row.annotator_id for row in rows} - self._kinds.keys()
        if people:
            self._kinds |= dict(User.objects.filter(pk__in=people).values_list("pk", "kind"))
            self._pseudonyms |= {pk: pseudonym_of(self.project, pk, key=self._key) for pk in people}
        versions = {row.version_id for row in rows} - self._versions.keys()
        if versions:
            self._versions |= dict(ProjectVersion.objects.filter(pk__in=versions).values_list("pk", "number"))

    def _wanted_of(self, page: Sequence[RankedRow], prompts: Mapping[int, PromptRow]) -> set[int]:
        """The numbers of the changes that wrote a wanted ranking."""
        found = {row.number: row.id for row in page if self._wants(row, prompts[row.prompt_id])}
        if not self._wanted.reviewed:
            return set(found)
        accepted = accepted_among(found.values(), up_to_change=self._up_to)
        return {number for number, pk in found.items() if pk in accepted}

    def _wants(self, row: RankedRow, prompt: PromptRow) -> bool:
        """Whether this change wrote a ranking that still stands at the window's end, and is wanted."""
        wanted = self._wanted
        return (
            row.kind in RANKED
            and not (row.superseded or row.withdrawn or prompt.withdrawn)
            and (row.counted or not wanted.counted)
            and (wanted.kinds is None or row.task_kind in wanted.kinds)
            and (wanted.annotator_kinds is None or self._kinds[row.annotator_id] in wanted.annotator_kinds)
            and (wanted.splits is None or prompt.split in wanted.splits)
        )

    def _marker(self, row: RankedRow, prompt: PromptRow) -> dict[str, Any]:
        """What takes an earlier line back."""
        marker: dict[str, Any] = {
            "format": VERSION,
            "project": self.project.slug,
            "task": str(row.task_id),
            "external_id": prompt.external_id,
        }
        if row.kind == Change.Kind.WITHDRAWAL:
            marker |= {"type": "withdrawn", "id": str(row.id)}
        else:
            marker |= {"type": "superseded", "id": str(row.supersedes_id), "superseded_by": str(row.id)}
        return canonical(marker | {"change": row.number})

    def _record(self, row: RankedRow, head: dict[str, Any], shown: "_Shown") -> dict[str, Any]:
        keys, said = shown.keys, row.extra
        tiers = dict(zip(row.responses, row.tiers, strict=True))
        record = {  # in the order of `native.KEYS`
            "format": head["format"],
            "id": str(row.id),
            "project": head["project"],
            "task": str(row.task_id),
            "external_id": head["external_id"],
            "split_group": head["split_group"],
            "split": head["split"],
            "kind": row.task_kind,
            "counted": row.counted,
            "prompt": head["prompt"],
            "responses": shown.responses,
            "ranking": _tiers(tiers, keys),
            "unranked": [key for pk, key in keys.items() if tiers[pk] is None],
            "strengths": row.strengths,
            "all_bad": row.all_bad,
            "ratings": _by_key(row.ratings, keys),
            "flags": _by_key(row.flags, keys),
            "rationale": row.rationale,
            "rewrite": _rewrite(row, keys),
            "annotator": self._pseudonyms[row.annotator_id],
            "annotator_kind": self._kinds[row.annotator_id],
            "weight": said.get("weight", 1.0) * self._weights.get(row.annotator_id, 1.0),
            "revision": said.get("revision", row.revision),
            "guideline_version": self._guideline_version(row),
            "presented_order": [keys[pk] for pk in row.presented_order] or None,
            "seconds": row.seconds,
            "change": row.number,
            "submitted_at": row.submitted_at,
        }  # fmt: skip
        return canonical(said | record) if said else record

    def _guideline_version(self, row: RankedRow) -> int | None:
        """The rules that the annotator saw: ours, or those that an import names; ours mean nothing to an import."""
        if row.source == Ranking.Source.IMPORT:
            found: int | None = row.extra.get("guideline_version")
            return found
        return self._versions[row.version_id]


class _Shown(NamedTuple):
    """The responses of a task, made once for all its rankings on a page; whoever is given them changes nothing."""

    keys: dict[int, str]
    responses: list[dict[str, Any]]


def _shown_of(responses: Mapping[int, Sequence[ResponseRow]]) -> dict[int, _Shown]:
    """Task id → its responses, of the tasks of which none is withdrawn."""
    return {
        task: _Shown({one.id: one.key for one in rows}, [_response_object(one) for one in rows])
        for task, rows in responses.items()
        if not any(one.withdrawn for one in rows)
    }


def head_of(project: Project, prompt: PromptRow | Prompt, group: PromptRow | SplitGroup) -> dict[str, Any]:
    """What every kind of line says about its prompt."""
    return {
        "format": VERSION,
        "project": project.slug,
        "external_id": prompt.external_id,
        "split_group": _split_group(prompt, group),
        "split": group.split,
        "prompt": prompt.messages,
    }


def _split_group(prompt: PromptRow | Prompt, group: PromptRow | SplitGroup) -> str:
    """The group's key. That of a group named by its first user message is not stored but made from the message."""
    key, key_sha256 = (
        (group.group_key, group.group_sha256) if isinstance(group, PromptRow) else (group.key, group.key_sha256)
    )
    if key:
        return key
    made = normalise_split_text(prompt.messages)
    return made if hashlib.sha256(made.encode()).hexdigest() == key_sha256 else f"sha256:{key_sha256}"


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
    found: dict[int, list[str]] = {}
    for pk, key in keys.items():
        if (tier := tiers[pk]) is not None:
            found.setdefault(tier, []).append(key)
    return [found[tier] for tier in sorted(found)]


def _by_key(values: Mapping[str, Any], keys: Mapping[int, str]) -> dict[str, Any]:
    """Stored per response id, said per response key, in the order of the responses."""
    return {key: values[str(pk)] for pk, key in keys.items() if str(pk) in values} if values else {}


def _rewrite(row: RankedRow, keys: Mapping[int, str]) -> dict[str, str] | None:
    if row.rewrite_of_id is None or row.rewrite_text is None:
        return None
    return {"of": keys[row.rewrite_of_id], "text": row.rewrite_text}
