"""Imports: records of any format into a project, chunk by chunk, and the way back while nothing was made of them."""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from annotate.errors import Invalid
from annotate.interchange.records import BadRecord, FileError, ImportedRecord
from annotate.interchange.streams import Source
from annotate.models import Change, ImportBatch, Project, RankingTask, Slot, User
from annotate.selectors.projects import current_version
from annotate.services.copying import Ids, analyse, draw_ids, look_up_by_index
from annotate.services.import_chunks import TABLES, Chunk, ImportPlan
from annotate.services.import_reports import ImportReport
from annotate.services.import_sources import Files, check_files, one_ahead, readable
from annotate.services.import_undo import undo_import
from annotate.services.locks import lock_imports

__all__ = [
    "ImportReport",
    "StrictImportRefused",
    "check_files",
    "import_files",
    "import_records",
    "import_stream",
    "undo_import",
]

CHUNK_RECORDS = 500
CHUNK_CHARACTERS = 16_000_000
MAX_OVERLAP = 50
#: Of a body at once: as much as gunicorn takes from a connection.
COPIED_BYTES = 1 << 20
#: From so many records on, an import ends with fresh statistics. Those that the server gathers by itself before it is
#: committed count no row at all, and the planner then joins the new rows by reading whole tables for each. Also on the
#: way, whenever the records written are GROWTH times as many as at the last time: without statistics the keys of new
#: tasks were checked by reading every prompt of the project for each.
LARGE = 200
GROWTH = 10
#: Somebody else may write the same prompt or split group between a chunk's look and its writing.
ATTEMPTS = 3

Records = Iterable[ImportedRecord | BadRecord]
Progress = Callable[[int], object]


class StrictImportRefused(Invalid):
    """A strict import that would not have been free of faults, and therefore changed nothing."""

    def __init__(self, report: ImportReport) -> None:
        message = f"{report.fault_count} of {report.read} records have faults; nothing was imported."
        super().__init__(message, code="strict", extra={"report": report.as_json()})
        self.report = report


def import_records(
    *,
    project: Project,
    records: Records,
    format: str = "plackett",
    source: str = "",
    created_by: User | None = None,
    overlap: int | None = None,
    priority: int = RankingTask.Priority.NORMAL,
    dry_run: bool = False,
    strict: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Writes what is new of the records; doing it again changes nothing.

    A prompt is named by its `external_id`, else by its content (messages and responses). Known with equal content it
    is unchanged, with other content a conflict that is reported and not written. Lines of one prompt share one task
    and add their rankings to it; a ranking belongs to an account that stands for its annotator and cannot log in, and
    is known by task, annotator and revision. Split groups keep the split they first got.

    Each chunk of 500 records is a transaction that locks the project's other imports out, and at its end the offer
    and change counters. Call it outside a transaction, or those locks last until yours ends.

    Args:
        records: read once, twice if `strict` (an iterator is then held in memory). If reading raises FileError, what
            was written is undone as `undo_import` does; `import_files` looks at whole files first.
        overlap: how many annotators shall rank each new task; if not given, the project's overlap for tasks that come
            without a ranking, 0 for those that bring one.
        dry_run: report what would happen, and write nothing. Takes one long transaction.
        strict: any fault, conflicts included, refuses the whole import.
        progress: called with the number of records read since the last call.

    Raises:
        Invalid: overlap or priority out of range.
        StrictImportRefused: `strict`, and some record has a fault.
    """
    options = _Options(project, format, created_by, overlap, priority)
    options.check()
    if strict and isinstance(records, Iterator):
        records = list(records)
    if strict or dry_run:
        report = _rehearse([(source, records)], options, progress)[0]
        _refuse_faults([report], strict=strict)
        if dry_run:
            return report
    return _import(source, records, options, progress)


def import_files(
    *,
    project: Project,
    files: Sequence[Source],
    format: str,
    created_by: User | None = None,
    overlap: int | None = None,
    priority: int = RankingTask.Priority.NORMAL,
    dry_run: bool = False,
    strict: bool = False,
    mapping: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> list[ImportReport]:
    """Imports files, each as a batch of its own, after every one of them was found readable. As import_records.

    Where a format joins what lies in several files, they are one batch, and one report.

    Args:
        files: paths, or binary streams that can go back to their start.
        mapping: column (or name) of the file → field, for formats that take one.

    Raises:
        Invalid: an unknown format, or a mapping that it does not take; and as import_records.
        FileError: a file cannot be read (the message names it); nothing was changed.
    """
    options = _Options(project, format, created_by, overlap, priority)
    options.check()
    check_files(files=files, format=format, mapping=mapping)
    sources = readable(files, format, mapping)
    if strict or dry_run:
        reports = _rehearse([(file.name, file) for file in sources], options, progress)
        _refuse_faults(reports, strict=strict)
        if dry_run:
            return reports
    return [_import(file.name, file, options, progress) for file in sources]


def import_stream(
    *,
    project: Project,
    stream: BinaryIO,
    format: str,
    source: str,
    created_by: User | None = None,
    overlap: int | None = None,
    priority: int = RankingTask.Priority.NORMAL,
    dry_run: bool = False,
    strict: bool = False,
    mapping: Mapping[str, str] | None = None,
) -> ImportReport:
    """Imports what can be read only once, such as the body of a request. As import_records.

    It goes to a temporary file first and is looked at whole, so that one that breaks off changes nothing.

    Raises:
        FileError: it cannot be read to its end; nothing was changed.
    """
    with tempfile.TemporaryFile() as file:
        try:
            shutil.copyfileobj(stream, file, COPIED_BYTES)
        except OSError as error:
            raise FileError(f"cannot be read: {error}") from error
        check_files(files=[file], format=format, mapping=mapping)
        return import_records(
            project=project,
            records=readable([file], format, mapping)[0],
            format=format,
            source=source,
            created_by=created_by,
            overlap=overlap,
            priority=priority,
            dry_run=dry_run,
            strict=strict,
        )


@dataclass(frozen=True, slots=True)
class _Options:
    project: Project
    format: str
    created_by: User | None
    overlap: int | None
    priority: int

    def check(self) -> None:
        if self.overlap is not None and not 0 <= self.overlap <= MAX_OVERLAP:
            raise Invalid(f"The overlap is 0 to {MAX_OVERLAP}.", fields={"overlap": f"0 to {MAX_OVERLAP}."})
        if self.priority not in RankingTask.Priority.values:
            raise Invalid("The priority is 0 (urgent) to 3 (low).", fields={"priority": "0 to 3."})

    def plan(self, source: str, *, dry_run: bool) -> ImportPlan:
        batch = ImportBatch(
            pk=draw_ids(ImportBatch, 1)[0],
            project=self.project,
            format=self.format,
            source=source[:300],
            created_by=self.created_by,
        )
        return ImportPlan(
            project=self.project,
            version=current_version(self.project),
            batch=batch,
            overlap=self.overlap,
            priority=self.priority,
            dry_run=dry_run,
            ids=Ids(),
        )


def _rehearse(
    sources: Sequence[tuple[str, Records]], options: _Options, progress: Progress | None
) -> list[ImportReport]:
    """What importing these sources one after the other would report; everything is rolled back."""
    with transaction.atomic():
        reports = [_run(options.plan(name, dry_run=True), records, progress) for name, records in sources]
        transaction.set_rollback(True)
    return reports


def _refuse_faults(reports: Sequence[ImportReport], *, strict: bool) -> None:
    total = ImportReport()
    for report in reports:
        total.add(report)
    if strict and total.fault_count:
        raise StrictImportRefused(total)


def _import(source: str, records: Records, options: _Options, progress: Progress | None) -> ImportReport:
    plan = options.plan(source, dry_run=False)
    try:
        report = _run(plan, records, progress)
    except FileError:
        if plan.batch_saved:
            undo_import(batch=plan.batch, by=options.created_by)
        raise
    if plan.batch_saved:
        report.batch_id = plan.batch.pk
        ImportBatch.objects.filter(pk=plan.batch.pk).update(counts=report.counts(), finished_at=Now())
        if report.written >= LARGE:
            _analyse()
    return report


def _run(plan: ImportPlan, records: Records, progress: Progress | None) -> ImportReport:
    report = ImportReport(dry_run=plan.dry_run)
    chunks = _chunks(records)
    due = LARGE
    for chunk in one_ahead(chunks) if isinstance(records, Files) else chunks:
        report.add(_write(plan, chunk))
        if report.written >= due:
            _analyse()
            due = GROWTH * report.written
        if progress is not None:
            progress(len(chunk))
    return report


def _analyse() -> None:
    analyse(*TABLES, Slot, Change)


def _write(plan: ImportPlan, records: Sequence[ImportedRecord | BadRecord]) -> ImportReport:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _write_once(plan, records)
        except IntegrityError:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def _write_once(plan: ImportPlan, records: Sequence[ImportedRecord | BadRecord]) -> ImportReport:
    with transaction.atomic():
        if not plan.dry_run:
            lock_imports(plan.project)
        look_up_by_index()
        chunk = Chunk(plan, records)
        written = chunk.write()
    plan.users = chunk.users
    plan.batch_saved |= written
    return chunk.report


def _chunks(records: Records) -> Iterator[list[ImportedRecord | BadRecord]]:
    """Records in groups of CHUNK_RECORDS, or fewer where they are long."""
    chunk: list[ImportedRecord | BadRecord] = []
    characters = 0
    for record in records:
        chunk.append(record)
        characters += _characters(record)
        if len(chunk) == CHUNK_RECORDS or characters > CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _characters(record: ImportedRecord | BadRecord) -> int:
    if isinstance(record, BadRecord):
        return len(record.reason)
    prompt = sum(len(message["content"]) for message in record.prompt)
    return prompt + sum(len(one.text) + len(one.thinking or "") for one in record.responses)
