"""Snapshots: native records frozen into a file that never changes, for runs to train from.

The file is in the artifact store before the row is committed, so a row always has its file. A file without a row,
left by a crash, is harmless: nothing names it.
"""

import hashlib
import json
import os
import tempfile
import tomllib
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from typing import Any, BinaryIO

from django.conf import settings
from django.core.files import File
from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from annotate.errors import Conflict, Invalid
from annotate.interchange.native import VERSION
from annotate.interchange.streams import encode_line
from annotate.models import (
    Change,
    Demonstration,
    Project,
    Ranking,
    RankingTask,
    Snapshot,
    SnapshotRanking,
    Split,
    User,
    Webhook,
)
from annotate.selectors.cursors import last_change
from annotate.selectors.records import (
    RankingFilter,
    demonstration_records,
    prompt_records,
    records_since,
)
from annotate.services.copying import RowMaker, copy_rows, draw_ids
from annotate.services.events import tell_of_snapshot
from annotate.services.locks import lock_withdrawals

Progress = Callable[[int], object]

ATTEMPTS = 3
MAX_NAME = 120


@dataclass(frozen=True, slots=True)
class SnapshotFilters:
    """What a snapshot takes in. Rankings that are superseded or withdrawn never are.

    Attributes:
        counted: only rankings that count towards their task's overlap.
        reviewed: only rankings that a reviewer accepted and nobody gave back since.
        kinds: kinds of task.
        annotator_kinds: kinds of annotator; machines must be asked for.
        splits: parts of the data.
        demonstrations: also demonstrations, for SFT.
        prompts: also bare prompts, for PPO.
    """

    counted: bool = True
    reviewed: bool = False
    kinds: tuple[str, ...] = tuple(sorted(RankingTask.Kind.values))
    annotator_kinds: tuple[str, ...] = (User.Kind.EXAMPLE.value, User.Kind.HUMAN.value, User.Kind.IMPORTED.value)
    splits: tuple[str, ...] = tuple(sorted(Split.values))
    demonstrations: bool = True
    prompts: bool = False

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "SnapshotFilters":
        """Filters from a request; what is not given is the default.

        Raises:
            Invalid: an unknown filter or value.
        """
        faults = {name: "There is no such filter." for name in values if name not in _CHOICES and name not in _SWITCHES}
        faults |= {name: "true or false." for name in _SWITCHES if not isinstance(values.get(name, True), bool)}
        for name, known in _CHOICES.items():
            chosen = values.get(name, known)
            if not isinstance(chosen, list | tuple) or not chosen or not set(map(str, chosen)) <= set(known):
                faults[name] = f"Some of {', '.join(known)}."
        if faults:
            raise Invalid(
                _("The filters are not valid."), fields={f"filters.{name}": why for name, why in faults.items()}
            )
        return cls(**{name: _in_one_order(value) for name, value in values.items()})

    def as_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @property
    def rankings(self) -> RankingFilter:
        return RankingFilter(self.counted, self.kinds, self.annotator_kinds, self.splits, self.reviewed)


def _in_one_order(value: Any) -> Any:
    return tuple(sorted(set(value))) if isinstance(value, list | tuple) else value


_CHOICES: dict[str, tuple[str, ...]] = {
    "kinds": tuple(RankingTask.Kind.values),
    "annotator_kinds": tuple(User.Kind.values),
    "splits": tuple(Split.values),
}
_SWITCHES = tuple(one.name for one in fields(SnapshotFilters) if one.name not in _CHOICES)


def freeze_snapshot(
    *,
    project: Project,
    name: str,
    filters: Mapping[str, Any] | None = None,
    created_by: User | None = None,
    progress: Progress | None = None,
) -> Snapshot:
    """Writes the records that the filters choose into a file and records it. Equal filters and data, equal bytes.

    Locks the project's withdrawals while the row is written; starts again if something was withdrawn meanwhile.

    Args:
        filters: fields of SnapshotFilters.
        progress: called with the number of lines written since the last call.

    Raises:
        Invalid: no name, a filter that is not valid, or (code `empty`) nothing to freeze.
        Conflict: things were being withdrawn all the time.
    """
    name = name.strip()
    if not 0 < len(name) <= MAX_NAME:
        raise Invalid(
            _("A snapshot's name has 1 to %(limit)d characters.") % {"limit": MAX_NAME},
            fields={"name": _("Give it a name.")},
        )
    chosen = SnapshotFilters.from_json(filters or {})
    for _attempt in range(ATTEMPTS):
        with tempfile.TemporaryFile() as file:
            draft = _write(project, chosen, file, progress)
            if not draft.counts["lines"]:
                raise Invalid(_why_empty(project), code="empty")
            stored = _publish(draft, file)
        if snapshot := _record(project, name, chosen, draft, stored, created_by):
            return snapshot
        default_storage.delete(stored)
    raise Conflict(_("Records were withdrawn while the snapshot was written; try again."))


def preview_snapshot(
    *, project: Project, filters: Mapping[str, Any] | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """The manifest that freezing now would give, without a snapshot: counts, sha256, size, change."""
    chosen = SnapshotFilters.from_json(filters or {})
    with tempfile.TemporaryFile() as file:
        draft = _write(project, chosen, file, progress)
    return {"filters": chosen.as_json(), "counts": draft.counts, "sha256": draft.sha256, "change": draft.change}


def open_snapshot(snapshot: Snapshot) -> "File[Any]":
    """The snapshot's file, to be read from its start and closed; the same bytes every time.

    Raises:
        Conflict: it was withdrawn (code `withdrawn`), or its file is gone or damaged (`damaged`).
    """
    snapshot.refresh_from_db(fields=["state"])
    if snapshot.state != Snapshot.State.FROZEN:
        raise Conflict(_("This snapshot was withdrawn: some of its records had to be removed."), code="withdrawn")
    if not default_storage.exists(snapshot.file) or default_storage.size(snapshot.file) != snapshot.size_bytes:
        raise Conflict(_("The snapshot's file is gone from the artifact store, or damaged."), code="damaged")
    return default_storage.open(snapshot.file, "rb")


def manifest_of(snapshot: Snapshot) -> dict[str, Any]:
    """What is known of a snapshot without its file; stays when it is withdrawn."""
    return {
        "format": VERSION,
        "project": snapshot.project.slug,
        "snapshot": snapshot.pk,
        "name": snapshot.name,
        "filters": snapshot.filters,
        "counts": snapshot.counts,
        "sha256": snapshot.sha256,
        "size_bytes": snapshot.size_bytes,
        "change": snapshot.change,
        "state": snapshot.state,
        "created_at": snapshot.created_at.isoformat(),
    }


# --- writing ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Draft:
    """A file in the making; ids of the rankings in it, 8 bytes each."""

    change: int
    rankings: "array[int]" = field(default_factory=lambda: array("q"))
    counts: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    size_bytes: int = 0


def _write(project: Project, chosen: SnapshotFilters, file: BinaryIO, progress: Progress | None) -> _Draft:
    draft = _Draft(change=last_change(project))
    digest = hashlib.sha256()
    tally = _Tally()
    for record in _records(project, chosen, up_to_change=draft.change):
        line = encode_line(record)
        file.write(line)
        digest.update(line)
        tally.add(record)
        if "ranking" in record:
            draft.rankings.append(int(record["id"]))
        if progress is not None:
            progress(1)
    draft.size_bytes = file.tell()
    draft.counts = tally.as_json()
    draft.sha256 = digest.hexdigest()
    return draft


def _records(project: Project, chosen: SnapshotFilters, *, up_to_change: int) -> Iterator[dict[str, Any]]:
    parts: list[Iterable[dict[str, Any]]] = [records_since(project, up_to_change=up_to_change, wanted=chosen.rankings)]
    if chosen.demonstrations:
        parts.append(demonstration_records(project, splits=chosen.splits))
    if chosen.prompts:
        parts.append(prompt_records(project, splits=chosen.splits))
    return chain.from_iterable(parts)


class _Tally:
    """Counts of lines; `pairs` are the strict preferences of the rankings."""

    def __init__(self) -> None:
        self._types: Counter[str] = Counter()
        self._splits: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self._pairs: Counter[str] = Counter()
        self._annotator_kinds: Counter[str] = Counter()

    def add(self, record: Mapping[str, Any]) -> None:
        self._types[record.get("type", "ranking")] += 1
        self._splits[record["split"]] += 1
        if "ranking" in record:
            sizes = [len(tier) for tier in record["ranking"]]
            self._kinds[record["kind"]] += 1
            self._annotator_kinds[record["annotator_kind"]] += 1
            self._pairs[record["split"]] += (sum(sizes) ** 2 - sum(size**2 for size in sizes)) // 2

    def as_json(self) -> dict[str, Any]:
        return {
            "lines": self._types.total(),
            "rankings": self._types["ranking"],
            "demonstrations": self._types["demonstration"],
            "prompts": self._types["prompt"],
            "pairs": self._pairs.total(),
            "lines_by_split": {split: self._splits[split] for split in Split.values},
            "pairs_by_split": {split: self._pairs[split] for split in Split.values},
            "rankings_by_kind": dict(sorted(self._kinds.items())),
            "rankings_by_annotator_kind": dict(sorted(self._annotator_kinds.items())),
            "plackett_version": _plackett_version(),
        }


def _plackett_version() -> str:
    """The installed version, or that of the checkout that runs uninstalled."""
    try:
        return version("plackett")
    except PackageNotFoundError:
        with open(settings.BASE_DIR / "pyproject.toml", "rb") as file:
            return str(tomllib.load(file)["project"]["version"])


def _why_empty(project: Project) -> str:
    rankings = Ranking.objects.filter(project=project, withdrawn_at=None).count()
    demonstrations = Demonstration.objects.filter(project=project, withdrawn_at=None).count()
    if rankings + demonstrations == 0:
        return _("There is nothing to freeze yet: the project has no ranking and no demonstration.")
    words = _(
        "Nothing fits these filters. Before filtering, the project has %(rankings)d rankings (all revisions) "
        "and %(demonstrations)d demonstrations."
    )
    return words % {"rankings": rankings, "demonstrations": demonstrations}


def _publish(draft: _Draft, file: BinaryIO) -> str:
    """Puts the file into the artifact store, named by its content, and returns its name there.

    Each snapshot has a file of its own, with a suffix where an equal one exists, so that a withdrawal can delete it.
    """
    file.seek(0)
    name = default_storage.save(f"snapshots/{draft.sha256[:2]}/{draft.sha256}.jsonl", File(file))
    _flush_to_disk(name)
    return name


def _flush_to_disk(name: str) -> None:
    """Where the store is a folder: the file must not be emptier than the row says after a power failure."""
    try:
        path = default_storage.path(name)
    except NotImplementedError:
        return
    for place in (path, os.path.dirname(path)):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@transaction.atomic
def _record(
    project: Project, name: str, chosen: SnapshotFilters, draft: _Draft, stored: str, created_by: User | None
) -> Snapshot | None:
    """Writes the rows; None if something was withdrawn since the file was begun."""
    lock_withdrawals(project)
    later = Change.objects.filter(project=project, number__gt=draft.change, kind=Change.Kind.WITHDRAWAL)
    if later.exists():
        return None
    snapshot = Snapshot.objects.create(
        project=project,
        name=name,
        filters=chosen.as_json(),
        counts=draft.counts,
        sha256=draft.sha256,
        size_bytes=draft.size_bytes,
        change=draft.change,
        file=stored,
        created_by=created_by,
    )
    copy_rows(SnapshotRanking, _rows(snapshot, draft.rankings))
    snapshot.refresh_from_db()
    tell_of_snapshot(snapshot, event=Webhook.Event.SNAPSHOT_FROZEN)
    return snapshot


def _rows(snapshot: Snapshot, rankings: "array[int]") -> Iterator[list[Any]]:
    ids, row = draw_ids(SnapshotRanking, len(rankings)), RowMaker(SnapshotRanking)
    return (row({"id": pk, "snapshot": snapshot, "ranking_id": one}) for pk, one in zip(ids, rankings, strict=True))


# --- withdrawal -------------------------------------------------------------------------------------------------------


def snapshots_holding(
    *, project: Project, rankings: Collection[int] = (), prompts: Collection[int] = ()
) -> list[Snapshot]:
    """The frozen snapshots with any of these rankings, or with a line about any of these prompts."""
    frozen = Snapshot.objects.filter(project=project, state=Snapshot.State.FROZEN)
    held = SnapshotRanking.objects.filter(snapshot__in=frozen, ranking__in=rankings)
    by_ranking = set(held.values_list("snapshot_id", flat=True).distinct())
    lines = {f"p{pk}" for pk in prompts}
    lines |= {f"d{pk}" for pk in Demonstration.objects.filter(prompt__in=prompts).values_list("pk", flat=True)}
    return [one for one in frozen if one.pk in by_ranking or _has_line(one, lines)]


def _has_line(snapshot: Snapshot, ids: Collection[str]) -> bool:
    """Whether the file holds a demonstration or a bare prompt of these ids, which no row tells."""
    if not ids or not snapshot.counts.get("demonstrations", 0) + snapshot.counts.get("prompts", 0):
        return False
    if not default_storage.exists(snapshot.file):
        return True
    with default_storage.open(snapshot.file, "rb") as file:
        return any(b'"type":"' in line and json.loads(line).get("id") in ids for line in file)


@transaction.atomic
def withdraw_snapshot(*, snapshot: Snapshot) -> None:
    """Marks a frozen snapshot withdrawn and, once that is committed, deletes its file. Manifest and hash stay."""
    changed = Snapshot.objects.filter(pk=snapshot.pk, state=Snapshot.State.FROZEN).update(
        state=Snapshot.State.WITHDRAWN, withdrawn_at=Now()
    )
    if changed:
        tell_of_snapshot(snapshot, event=Webhook.Event.SNAPSHOT_WITHDRAWN)
        # A store that is away must not undo the word that it was withdrawn; see delete_left_files.
        transaction.on_commit(lambda: delete_withdrawn_files(snapshot.project), robust=True)


def delete_withdrawn_files(project: Project) -> None:
    """Deletes the files of withdrawn snapshots; also those that a crash after an earlier withdrawal left."""
    for snapshot in Snapshot.objects.filter(project=project, state=Snapshot.State.WITHDRAWN):
        if default_storage.exists(snapshot.file):
            default_storage.delete(snapshot.file)


def delete_left_files() -> int:
    """Deletes the files of withdrawn snapshots that are still there, as when the store was away; how many. Beat calls
    it."""
    left = [one for one in Snapshot.objects.filter(state=Snapshot.State.WITHDRAWN) if default_storage.exists(one.file)]
    for one in left:
        default_storage.delete(one.file)
    return len(left)
