"""Making a backup: the database first, then the files; see webapp.backups for why."""

import fnmatch
import os
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings
from django.core.files.storage import FileSystemStorage, default_storage

from training.store.bundles import TURN_NAME
from webapp.backups.manifest import DUMP, FILES, BackupError, Manifest, Progress, StoredFile, copy_with_hash, read_hash
from webapp.backups.objects import objects_named, store_address
from webapp.backups.postgres import dump_database, frozen_database

# What a run keeps for one attempt alone, and what is not published yet: of no use in a backup, and partly texts that
# must not outlive a withdrawal.
PASSING = ("data-*", "tokens-*", "*.tmp", "*.part", "*.lock")
CHECKPOINTS = "checkpoints"

Say = Callable[[str], object]


def folders() -> dict[str, Path]:
    """What is copied, by its name in a backup: artifacts (unless they are in another kind of store), runs, models."""
    known = {"runs": Path(settings.RUNS_ROOT), "models": Path(settings.MODELS_ROOT)}
    if isinstance(default_storage, FileSystemStorage):
        return {"artifacts": Path(default_storage.path("")), **known}
    return known


def make_backup(target: Path, *, checkpoints: bool, say: Say, progress: Progress) -> Manifest:
    """Writes a backup into a new folder, while everything goes on.

    Args:
        checkpoints: also those of runs; without them a run that had not finished starts over after a restore.

    Raises:
        BackupError: the folder exists, the disk is full, or a program failed; a folder without a manifest stays behind.
    """
    try:
        target.mkdir(parents=True, mode=0o700)
        say("Dumping the database …")
        with frozen_database() as frozen:
            dump_database(target / DUMP, snapshot=frozen.snapshot)
        size, sha256 = read_hash(target / DUMP, progress=lambda _: None)
        objects = objects_named(checkpoints=checkpoints)
        say("Copying the files …")
        files, vanished = _copy_files(target / FILES, checkpoints=checkpoints, progress=progress)
        manifest = Manifest(
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            plackett=_version(),
            server=frozen.server,
            dump=StoredFile(DUMP, size, sha256),
            tables=frozen.tables,
            files=files,
            artifacts_included="artifacts" in folders(),
            vanished=vanished,
            store=store_address(),
            objects=objects,
        )
        manifest.write(target)
    except FileExistsError:
        raise BackupError(f"{target} exists already: each backup has a folder of its own.") from None
    except OSError as error:
        raise BackupError(f"The backup could not be written: {error}") from error
    return manifest


def _copy_files(target: Path, *, checkpoints: bool, progress: Progress) -> tuple[list[StoredFile], list[str]]:
    """Copies all folders; returns what was copied and what was deleted before it could be."""
    copied, vanished = [], []
    for name, root in folders().items():
        for path in _walk(root, checkpoints=checkpoints):
            stored = f"{name}/{path.relative_to(root).as_posix()}"
            try:
                copied.append(StoredFile(stored, *copy_with_hash(path, target / stored, progress=progress)))
            except FileNotFoundError:
                vanished.append(stored)
    return copied, vanished


def _walk(folder: Path, *, checkpoints: bool) -> Iterator[Path]:
    """Every file worth keeping, in order; links are not followed.

    Folders come before the files beside them: a run that goes on meanwhile writes its measurements before the
    checkpoint that follows them, so measurements that are read last hold every step of the checkpoints.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: (entry.is_file(), entry.name))
    except FileNotFoundError:
        return
    for entry in entries:
        if (Path(entry.path) / TURN_NAME).is_file():  # of a run that is in the bucket, a machine's own copy
            continue
        if entry.is_symlink() or any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in PASSING):
            continue
        if not entry.is_dir():
            yield Path(entry.path)
        elif checkpoints or entry.name != CHECKPOINTS:
            yield from _walk(Path(entry.path), checkpoints=checkpoints)


def _version() -> str:
    project = tomllib.loads((settings.BASE_DIR / "pyproject.toml").read_text())["project"]
    return str(project["version"])
