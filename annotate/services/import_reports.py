"""What an import tells its caller: every record is counted once, and the first faults are kept with their place."""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

MAX_FAULTS_KEPT = 200
MAX_REASONS = 50

# What differs from record to record in one kind of fault: quoted values, ids, numbers.
_VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|\b[0-9a-f]{8}[0-9a-f-]{8,}\b")
_NUMBER = re.compile(r"\d[\d,]*")


@dataclass(frozen=True, slots=True)
class Fault:
    """A record that was not taken: where it stood, and why. `kind` is `skipped` or `conflict`."""

    source: str
    line: int
    item: int | None
    kind: str
    reason: str

    def as_json(self) -> dict[str, Any]:
        return {"file": self.source, "line": self.line, "item": self.item, "kind": self.kind, "reason": self.reason}


@dataclass(slots=True)
class ImportReport:
    """Counts of records: read = written + unchanged + conflicts + skipped + left_out.

    Attributes:
        written: records that brought something new.
        conflicts: records whose external_id (or annotator and revision) is known with other content.
        skipped: bad records and those that contradict what is known.
        left_out: records that the format's own rule leaves out; no fault.
        reasons: how often each kind of reason occurred, of conflicts, skipped and left_out together.
        rows: rows written, by kind.
        faults: the first conflicts and skipped records, at most MAX_FAULTS_KEPT.
        batch_id: the ImportBatch, None if nothing was written.
    """

    read: int = 0
    written: int = 0
    unchanged: int = 0
    conflicts: int = 0
    skipped: int = 0
    left_out: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    batch_id: int | None = None
    dry_run: bool = False

    @property
    def fault_count(self) -> int:
        return self.conflicts + self.skipped

    def count_taken(self, *, new: bool) -> None:
        self.read += 1
        self.written += new
        self.unchanged += not new

    def count_left_out(self, reason: str) -> None:
        self.read += 1
        self.left_out += 1
        self._count_reason(reason)

    def count_fault(self, fault: Fault) -> None:
        self.read += 1
        self.conflicts += fault.kind == "conflict"
        self.skipped += fault.kind == "skipped"
        self._count_reason(fault.reason)
        if len(self.faults) < MAX_FAULTS_KEPT:
            self.faults.append(fault)

    def add(self, other: "ImportReport") -> None:
        """Takes in what a committed chunk reports."""
        for name in ("read", "written", "unchanged", "conflicts", "skipped", "left_out"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for reason, count in other.reasons.items():
            self._count_reason(reason, count)
        self.rows.update(other.rows)
        self.faults += other.faults[: MAX_FAULTS_KEPT - len(self.faults)]

    def counts(self) -> dict[str, Any]:
        """The counts as JSON, for the batch, the API and the command."""
        names = ("read", "written", "unchanged", "conflicts", "skipped", "left_out")
        return {name: getattr(self, name) for name in names} | {
            "reasons": dict(self.reasons.most_common()),
            "rows": dict(sorted(self.rows.items())),
        }

    def as_json(self) -> dict[str, Any]:
        """Counts, the faults that were kept, and whether there were more."""
        return self.counts() | {
            "batch": self.batch_id,
            "dry_run": self.dry_run,
            "errors": [fault.as_json() for fault in self.faults],
            "errors_left_off": self.fault_count - len(self.faults),
        }

    def _count_reason(self, reason: str, count: int = 1) -> None:
        kind = _NUMBER.sub("N", _VARIABLE.sub("…", reason))
        self.reasons[kind if kind in self.reasons or len(self.reasons) < MAX_REASONS else "other reasons"] += count
