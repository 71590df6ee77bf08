"""What an import takes of a record, and why not: rules that look at the record and at what is known."""

from collections.abc import Mapping, Sequence
from itertools import chain, count
from typing import Any, NamedTuple, cast

from annotate.interchange.records import ImportedRecord
from annotate.models import Project, User
from annotate.preferences import Answer, Rewrite
from annotate.selectors.records import pseudonym_of
from annotate.services.import_known import Group, KnownPrompt, KnownRanking, content_sha256, sha256_of

ANONYMOUS = "anonymous"
MAX_USERNAME = 150
MAX_LANGUAGE = 20

#: Whom an imported annotator stands for. A person of another database is no person here.
_USER_KINDS = {
    "human": User.Kind.IMPORTED,
    "imported": User.Kind.IMPORTED,
    "machine": User.Kind.MACHINE,
    "example": User.Kind.EXAMPLE,
}


class NotTaken(Exception):
    """A record that the chunk leaves out, as `skipped` or `conflict`."""

    def __init__(self, reason: str, *, kind: str = "skipped") -> None:
        super().__init__(reason)
        self.kind = kind


def _conflict(reason: str) -> NotTaken:
    return NotTaken(reason, kind="conflict")


# --- what may be taken ------------------------------------------------------------------------------------------------


def refuse_lone_repeat(prompt: KnownPrompt | None, record: ImportedRecord) -> None:
    if record.kind != "repeat":
        return
    if record.ranking is None:
        raise NotTaken("a repeat without a ranking: repeats are made here, for one person")
    if prompt is None or original_of(prompt, record) is None:
        raise NotTaken("a repeat of a task that is not known here")


def task_key(prompt: KnownPrompt, record: ImportedRecord) -> tuple[str, frozenset[int]]:
    return record.kind, frozenset(prompt.responses[response.id] for response in record.responses)


def original_of(prompt: KnownPrompt, record: ImportedRecord) -> int | None:
    """The task that a repeat repeats."""
    if not prompt.responses.keys() >= {response.id for response in record.responses}:
        return None
    _, chosen = task_key(prompt, record)
    return prompt.tasks.get(("normal", chosen)) or prompt.tasks.get(("gold", chosen))


def check_same(prompt: KnownPrompt, record: ImportedRecord) -> None:
    """A known prompt stays as it is: the record agrees with it, or is not taken."""
    name = f"external_id {record.external_id!r}" if record.external_id is not None else "the prompt"
    if prompt.withdrawn:
        raise NotTaken(f"{name} was withdrawn here")
    if prompt.lacks_response and record.type == "ranking":
        raise NotTaken(f"a response to {name} was withdrawn here")
    if prompt.content_sha256 != content_sha256(record) and not _says_nothing_else(prompt, record):
        raise _conflict(f"{name} is known with other content")
    if record.split_group is not None and sha256_of(record.split_group) != prompt.group.sha256:
        raise _conflict(f"{name} is known in another split group")
    check_split(prompt.group, record)


def _says_nothing_else(prompt: KnownPrompt, record: ImportedRecord) -> bool:
    """A demonstration or bare prompt under the external_id of a prompt with responses, its messages the same."""
    bare = record.type != "ranking" and record.answer is None and record.tests is None
    return bare and prompt.messages == [dict(message) for message in record.prompt]


def check_split(group: Group, record: ImportedRecord) -> None:
    if record.split is not None and record.split != group.split:
        raise NotTaken(f"split {record.split}, but its split group is in {group.split} here")


def compare(known: KnownRanking, sha256: str, record: ImportedRecord) -> bool:
    """False, for nothing new.

    Raises:
        NotTaken: the same revision says something else.
    """
    if known.withdrawn:
        raise NotTaken("the ranking was withdrawn here")
    if (known.content_sha256, known.counted) != (sha256, record.counted):
        who = record.annotator or "an unnamed annotator"
        raise _conflict(f"revision {record.revision} by {who!r} is known with another answer")
    return False


def check_follows(last: KnownRanking | None, record: ImportedRecord) -> None:
    if last is None:
        return
    if last.withdrawn:
        raise NotTaken("the annotator's ranking was withdrawn here")
    if record.revision < last.given_revision:
        raise NotTaken(f"revision {record.revision} comes after revision {last.given_revision}")
    if record.counted != last.counted:
        raise NotTaken("a revision counts if and only if the one before it does")


# --- parts of a record ------------------------------------------------------------------------------------------------


class Annotator(NamedTuple):
    username: str
    name: str
    kind: str


def username_of(project: Project, record: ImportedRecord) -> str:
    return _account(project, record.annotator or ANONYMOUS, record).username


def _account(project: Project, name: str, record: ImportedRecord) -> Annotator:
    """The account that stands for a name: `imported:PROJECT:NAME`, cut and told apart by a hash where that is long."""
    kind = _USER_KINDS[record.annotator_kind]
    username = f"{kind}:{project.slug}:{name}"
    if len(username) > MAX_USERNAME:
        username = f"{username[: MAX_USERNAME - 33]}:{sha256_of(name)[:32]}"
    return Annotator(username, name, kind)


def annotator_of(project: Project, record: ImportedRecord, known: Sequence[KnownRanking]) -> Annotator:
    """Whose ranking this is. Unnamed answers with ids of their own are different people where they share a task."""
    if record.annotator is not None or record.id is None:
        return _account(project, record.annotator or ANONYMOUS, record)
    same_id = (one.username.split(":", 2)[-1] for one in known if one.given_id == record.id)
    if name := next((name for name in same_id if name.startswith(ANONYMOUS)), None):
        return _account(project, name, record)
    names = chain([ANONYMOUS], (f"{ANONYMOUS} {number}" for number in count(2)))
    people = (_account(project, name, record) for name in names)
    taken = {one.username for one in known}
    return next(person for person in people if person.username not in taken)


def exported_from_here(project: Project, record: ImportedRecord, known: Sequence[KnownRanking]) -> KnownRanking | None:
    """The ranking that this record was exported from, where the export comes back to its own database."""
    if record.project != project.slug:
        return None
    found = (one for one in known if str(one.id) == record.id)
    return next((one for one in found if pseudonym_of(project, one.annotator_id) == record.annotator), None)


def answer_of(record: ImportedRecord, ids: Mapping[str, int]) -> Answer:
    """The record's answer with response ids as they are in the database, as text."""
    names = {key: str(pk) for key, pk in ids.items()}
    rewrite = record.rewrite
    return Answer(
        ranking=[[names[key] for key in tier] for tier in record.ranking or ()],
        unranked=[names[key] for key in record.unranked],
        strengths=list(record.strengths),
        all_bad=record.all_bad,
        ratings={names[key]: cast(Mapping[str, int], values) for key, values in record.ratings.items()},
        flags={names[key]: list(flags) for key, flags in record.flags.items() if flags},
        rationale=(record.rationale or "").strip() or None,
        rewrite=Rewrite(names[rewrite.of], rewrite.text) if rewrite else None,
    )


def kept_of(record: ImportedRecord, revision: int) -> dict[str, Any]:
    """What has no column: unknown keys, and what the record said of itself elsewhere."""
    said = {
        "id": record.id,
        "revision": record.revision if record.revision != revision else None,
        "weight": record.weight if record.weight != 1.0 else None,
        "guideline_version": record.guideline_version,
    }
    return dict(record.extra) | {key: value for key, value in said.items() if value is not None}


def language_of(record: ImportedRecord) -> str:
    language = record.extra.get("language", record.extra.get("lang"))
    return language if isinstance(language, str) and len(language) <= MAX_LANGUAGE else ""


def tags_of(record: ImportedRecord) -> list[str]:
    tags = record.extra.get("tags")
    return tags if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags) else []
