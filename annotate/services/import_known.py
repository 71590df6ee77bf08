"""What the database already holds of a chunk of records, read with a fixed number of queries."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from annotate.interchange.records import ImportedRecord
from annotate.models import (
    Demonstration,
    Project,
    Prompt,
    Ranking,
    RankingTask,
    Response,
    SplitGroup,
    TaskResponse,
    User,
)
from annotate.preferences import normalise_split_text


class Group(NamedTuple):
    """A split group: its row, its split, and the hash that names it."""

    id: int
    sha256: str
    split: str


@dataclass(slots=True)
class KnownRanking:
    """What an import compares with. `given_revision` is the number that it came with."""

    id: int
    annotator_id: int
    username: str
    revision: int
    given_revision: int
    given_id: str | None
    content_sha256: str
    counted: bool
    withdrawn: bool


@dataclass(slots=True)
class KnownPrompt:
    """A prompt with what hangs on it.

    Attributes:
        responses: key → id.
        tasks: (kind, ids of the task's responses) → id.
        lacks_response: one of its responses was withdrawn.
        demonstrations: sha256 of the text → whether it was withdrawn.
    """

    id: int
    content_sha256: str
    messages: list[Any]
    group: Group
    withdrawn: bool = False
    lacks_response: bool = False
    responses: dict[str, int] = field(default_factory=dict)
    tasks: dict[tuple[str, frozenset[int]], int] = field(default_factory=dict)
    demonstrations: dict[str, bool] = field(default_factory=dict)


PromptKey = tuple[str, str]


def key_of(record: ImportedRecord) -> PromptKey:
    """What names the record's prompt in its project: the external_id, else the content."""
    if record.external_id is not None:
        return ("external_id", record.external_id)
    return ("content", content_sha256(record))


def content_sha256(record: ImportedRecord) -> str:
    """The hash of what may not differ under one external_id: the prompt with its responses, or its answer and tests."""
    if record.type == "ranking":
        return record.content_key
    return sha256_of(json.dumps([record.prompt, record.answer, record.tests], ensure_ascii=False, sort_keys=True))


def group_key_of(record: ImportedRecord) -> str:
    """The split group given with the record, else the normalised first user message."""
    return record.split_group if record.split_group is not None else normalise_split_text(record.prompt)


def sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def known_prompts(*, project: Project, records: Sequence[ImportedRecord]) -> dict[PromptKey, KnownPrompt]:
    """The prompts that these records name, with responses, tasks and demonstrations: six queries."""
    names = [record.external_id for record in records if record.external_id is not None]
    hashes = [content_sha256(record) for record in records if record.external_id is None]
    found = Prompt.objects.filter(project=project).select_related("split_group")
    prompts = [
        *found.filter(external_id__in=names),
        *found.filter(external_id__isnull=True, content_sha256__in=hashes),
    ]
    known = {prompt.pk: _known(prompt) for prompt in prompts}
    responses = Response.objects.filter(prompt__in=known).values_list("prompt_id", "key", "id", "withdrawn_at")
    for prompt_id, key, pk, withdrawn_at in responses:
        known[prompt_id].responses[key] = pk
        known[prompt_id].lacks_response |= withdrawn_at is not None
    tasks = list(RankingTask.objects.filter(prompt__in=known).order_by("-id").values_list("id", "prompt_id", "kind"))
    chosen: dict[int, set[int]] = defaultdict(set)
    rows = TaskResponse.objects.filter(task__in=[task[0] for task in tasks])
    for task_id, response_id in rows.values_list("task_id", "response_id"):
        chosen[task_id].add(response_id)
    for task_id, prompt_id, kind in tasks:
        known[prompt_id].tasks[kind, frozenset(chosen[task_id])] = task_id
    for prompt_id, sha256, withdrawn_at in Demonstration.objects.filter(prompt__in=known).values_list(
        "prompt_id", "text_sha256", "withdrawn_at"
    ):
        known[prompt_id].demonstrations[sha256] = withdrawn_at is not None
    return {_key(prompt): known[prompt.pk] for prompt in prompts}


def _key(prompt: Prompt) -> PromptKey:
    if prompt.external_id is not None:
        return ("external_id", prompt.external_id)
    return ("content", prompt.content_sha256)


def _known(prompt: Prompt) -> KnownPrompt:
    group = prompt.split_group
    return KnownPrompt(
        id=prompt.pk,
        content_sha256=prompt.content_sha256,
        messages=prompt.messages,
        group=Group(group.pk, group.key_sha256, group.split),
        withdrawn=prompt.withdrawn_at is not None,
    )


def known_groups(*, project: Project, hashes: Iterable[str]) -> dict[str, Group]:
    """Split groups by the hash of their key: one query."""
    rows = SplitGroup.objects.filter(project=project, key_sha256__in=list(hashes))
    return {row[1]: Group(*row) for row in rows.values_list("id", "key_sha256", "split")}


def known_rankings(prompts: Iterable[KnownPrompt]) -> defaultdict[int, list[KnownRanking]]:
    """Every ranking of these prompts' tasks, by task, in the order of revisions: one query."""
    tasks = [task for prompt in prompts for task in prompt.tasks.values()]
    found: defaultdict[int, list[KnownRanking]] = defaultdict(list)
    if tasks:
        rows = Ranking.objects.filter(task__in=tasks).select_related("annotator").order_by("revision", "id")
        for row in rows.only(*_RANKING_FIELDS):
            found[row.task_id].append(_known_ranking(row))
    return found


_RANKING_FIELDS = (
    "task_id", "annotator__username", "revision", "extra", "content_sha256", "counted", "withdrawn_at", "source",
)  # fmt: skip


def _known_ranking(row: Ranking) -> KnownRanking:
    return KnownRanking(
        id=row.pk,
        annotator_id=row.annotator_id,
        username=row.annotator.username,
        revision=row.revision,
        given_revision=row.extra.get("revision", row.revision),
        given_id=row.extra.get("id"),
        content_sha256=row.content_sha256,
        counted=row.counted,
        withdrawn=row.withdrawn_at is not None,
    )


def known_users(usernames: Iterable[str]) -> dict[str, int]:
    """Ids by username: one query."""
    return dict(User.objects.filter(username__in=list(usernames)).values_list("username", "id"))
