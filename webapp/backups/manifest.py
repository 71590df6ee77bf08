"""What a backup says of itself: `manifest.json`, written last, so that a folder without one is no backup."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

FORMAT = "plackett-backup/1"
MANIFEST = "manifest.json"
DUMP = "database.dump"
FILES = "files"
CHUNK_BYTES = 1 << 20

Progress = Callable[[int], object]
"""Told how many bytes were done since the last time."""


class BackupError(Exception):
    """A backup cannot be made, read or put back; the message is for the operator."""


@dataclass(frozen=True)
class StoredFile:
    """One file of a backup: its path below `files`, as `FOLDER/…`."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything that has to be the same after a restore.

    Attributes:
        tables: rows of each table, counted in the very snapshot that was dumped.
        artifacts_included: False where the artifact store is no folder; it has backups of its own then.
        vanished: files that were deleted while the backup was made.
        store: the bucket that artifacts are in; empty where they are in a folder.
        objects: of that bucket, what the rows need; named here, not copied.
    """

    created_at: str
    plackett: str
    server: str
    dump: StoredFile
    tables: dict[str, int]
    files: list[StoredFile]
    artifacts_included: bool
    vanished: list[str]
    store: str = ""
    objects: list[StoredFile] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return self.dump.size_bytes + sum(file.size_bytes for file in self.files)

    def write(self, folder: Path) -> None:
        """Writes it by rename, after everything else has reached the disk."""
        draft = folder / f"{MANIFEST}.part"
        draft.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")
        os.sync()
        draft.rename(folder / MANIFEST)
        os.sync()

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of the backup in the folder.

        Raises:
            BackupError: there is none, or it is not one of ours.
        """
        try:
            plain = json.loads((folder / MANIFEST).read_text())
            if plain.pop("format") != FORMAT:
                raise BackupError(f"{folder / MANIFEST} is not of the format {FORMAT}.")
            dump, files = StoredFile(**plain.pop("dump")), [StoredFile(**one) for one in plain.pop("files")]
            objects = [StoredFile(**one) for one in plain.pop("objects", ())]  # of a backup before there were buckets
            return cls(dump=dump, files=files, objects=objects, **plain)
        except FileNotFoundError:
            raise BackupError(f"{folder} is no backup: it has no {MANIFEST}, which is written last.") from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise BackupError(f"{folder / MANIFEST} cannot be read: {error}") from error

    def check(self, folder: Path, *, progress: Progress) -> None:
        """Reads every file of the backup.

        Raises:
            BackupError: the first that is gone or differs from what was written.
        """
        for stored, path in self.places(folder):
            if not path.is_file():
                raise BackupError(f"{path} is gone.")
            if read_hash(path, progress=progress) != (stored.size_bytes, stored.sha256):
                raise BackupError(f"{path} is damaged: it is not what was written.")

    def places(self, folder: Path) -> Iterator[tuple[StoredFile, Path]]:
        """The dump and every file, each with where it lies in the backup."""
        yield self.dump, folder / DUMP
        for file in self.files:
            yield file, folder / FILES / file.path


def read_hash(path: Path, *, progress: Progress) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            progress(len(chunk))
    return size, digest.hexdigest()


def copy_with_hash(source: Path, target: Path, *, progress: Progress) -> tuple[int, str]:
    """Copies a file and tells size and SHA-256 of what was written; one that grows meanwhile is cut where it was.

    Raises:
        FileNotFoundError: the source is gone.
    """
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as read:
        left = os.fstat(read.fileno()).st_size
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as written:
            while left and (chunk := read.read(min(CHUNK_BYTES, left))):
                digest.update(chunk)
                written.write(chunk)
                size += len(chunk)
                left -= len(chunk)
                progress(len(chunk))
    return size, digest.hexdigest()
