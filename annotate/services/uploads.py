"""Files that wait on the server between their upload and their import: bounded in size, number and time.

The file is in the artifact store, where every web process reaches it. It is removed when it was imported or given up,
when a newer one takes its place, and six hours after it came, by `forget_uploads`.
"""

import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, BinaryIO, cast

from django.conf import settings
from django.core.files import File
from django.core.files.storage import default_storage
from django.db.models.functions import Now
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _

from annotate.errors import Invalid, NotFound
from annotate.interchange import FORMATS
from annotate.interchange.cells import guessed
from annotate.interchange.records import MAX_COLUMNS, BadRecord, FileError, ImportedRecord
from annotate.models import ImportUpload, Project, User
from annotate.services.import_reports import ImportReport
from annotate.services.import_sources import check_files
from annotate.services.imports import import_stream

KEPT_FOR = timedelta(hours=6)
#: Waiting files of one person in one project.
AT_ONCE = 3
#: How far a preview looks for examples of good and of bad records.
PREVIEW_RECORDS = 200
PREVIEW_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Preview:
    """The first records as they would be taken, the first that would not, and how many of each were looked at."""

    good: list[ImportedRecord]
    bad: list[BadRecord]
    looked_at: int
    good_count: int
    whole: bool


def keep_upload(*, project: Project, by: User, file: BinaryIO, name: str, size: int, format: str) -> ImportUpload:
    """Takes a file in, after it was read to its end; the person's oldest waiting file goes if there are too many.

    Raises:
        Invalid: too large, or an unknown format.
        FileError: it cannot be read to its end.
    """
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    if size > limit:
        words = _("Larger than %(limit)s; manage.py import_data takes files of any size.")
        raise Invalid(words % {"limit": filesizeformat(limit)}, fields={"file": _("Too large.")})
    check_files(files=[file], format=format)
    columns = _columns(file, format)
    forget_uploads()
    mine = ImportUpload.objects.filter(project=project, created_by=by).order_by("-created_at", "-pk")
    for old in mine[AT_ONCE - 1 :]:
        drop_upload(old)
    file.seek(0)
    upload = ImportUpload(
        project=project,
        created_by=by,
        format=format,
        name=name[:300],
        columns=columns,
        mapping=guessed(columns) if FORMATS[format].is_table else {},
        size_bytes=size,
    )
    upload.stored = default_storage.save(f"uploads/{upload.pk}", File(file))
    upload.save(force_insert=True)
    return upload


def _columns(file: BinaryIO, format: str) -> list[str]:
    named = FORMATS[format].columns
    if named is None:
        return []
    file.seek(0)
    names = named(file)
    if len(names) > MAX_COLUMNS:
        raise FileError(f"its first record has {len(names):,} names; there may be {MAX_COLUMNS:,}")
    return names


def get_upload(*, project: Project, by: User, upload: uuid.UUID) -> ImportUpload:
    """One's own waiting file.

    Raises:
        NotFound: there is none, it is somebody else's, or its time is over.
    """
    own = ImportUpload.objects.filter(project=project, created_by=by, pk=upload, created_at__gt=Now() - KEPT_FOR)
    if (found := own.first()) is None or not default_storage.exists(found.stored):
        raise NotFound(_("This file is no longer kept here; upload it again."))
    return found


def preview_upload(upload: ImportUpload) -> Preview:
    """Looks at the first records under the mapping that the upload has.

    Raises:
        Invalid: the format does not take the mapping.
        FileError: it cannot be read.
    """
    good: list[ImportedRecord] = []
    bad: list[BadRecord] = []
    looked_at = good_count = 0
    with default_storage.open(upload.stored, "rb") as file:
        check_files(files=[], format=upload.format, mapping=upload.mapping)
        records = FORMATS[upload.format].read(cast(BinaryIO, file), upload.mapping)
        for record in records:
            if looked_at == PREVIEW_RECORDS:
                return Preview(good, bad, looked_at, good_count, whole=False)
            looked_at += 1
            if isinstance(record, BadRecord):
                bad += [record] if len(bad) < PREVIEW_SHOWN else []
            else:
                good_count += 1
                good += [record] if len(good) < PREVIEW_SHOWN else []
    return Preview(good, bad, looked_at, good_count, whole=True)


def map_columns(upload: ImportUpload, mapping: Mapping[str, str]) -> None:
    """Remembers what the columns mean.

    Raises:
        Invalid: the format does not take the mapping.
    """
    check_files(files=[], format=upload.format, mapping=mapping)
    upload.mapping = dict(mapping)
    upload.save(update_fields=["mapping"])


def import_upload(upload: ImportUpload, *, dry_run: bool, **options: Any) -> ImportReport:
    """Imports the waiting file, which then is gone; or says what importing it would do, and it stays.

    Args:
        options: overlap, priority and strict of services.imports.

    Raises:
        Invalid, FileError: as import_stream; the file stays.
    """
    with default_storage.open(upload.stored, "rb") as file:
        report = import_stream(
            project=upload.project,
            stream=cast(BinaryIO, file),
            format=upload.format,
            source=upload.name,
            created_by=upload.created_by,
            mapping=upload.mapping,
            dry_run=dry_run,
            **options,
        )
    if not dry_run:
        drop_upload(upload)
    return report


def drop_upload(upload: ImportUpload) -> None:
    """Removes a waiting file. The row goes last, so that a crash in between leaves nothing that nobody knows of."""
    with suppress(FileNotFoundError):
        default_storage.delete(upload.stored)
    upload.delete()


def forget_uploads() -> int:
    """Removes the files whose time is over, of all projects; returns how many."""
    over = list(ImportUpload.objects.filter(created_at__lte=Now() - KEPT_FOR))
    for upload in over:
        drop_upload(upload)
    return len(over)
