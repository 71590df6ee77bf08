"""Putting a backup back into an empty place, or in the place of what is there."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from annotate.services.epochs import start_epoch
from webapp.backups.making import folders
from webapp.backups.manifest import DUMP, FILES, BackupError, Manifest, Progress, copy_with_hash
from webapp.backups.objects import missing_objects, store_address
from webapp.backups.postgres import count_rows, empty_database, load_database, others_connected

Say = Callable[[str], object]

LEAVING_SECONDS = 2.0
"""How long a connection that was just closed may still be seen by the server."""


def restore_backup(
    source: Path, *, wipe: bool, same_history: bool, say: Say, progress: Progress, without_objects: bool = False
) -> Manifest:
    """Reads the whole backup first, then puts the files and last the database in their places.

    Files that no row names are harmless, rows without their files are not: so a restore that is interrupted leaves an
    empty database, and is begun again.

    Args:
        wipe: delete what is there; without it a place that is not empty is refused.
        without_objects: go on although objects that the backup names are not in the bucket.
        same_history: nothing was written after the backup (a move to another machine), so cursors of exports stay good.

    Raises:
        BackupError: the backup is damaged, the place is in use or not empty, or something differs after all.
    """
    manifest = Manifest.read(source)
    say("Checking the backup …")
    manifest.check(source, progress=progress)
    _check_place(manifest, wipe=wipe)
    _check_objects(manifest, without=without_objects, say=say)
    if wipe:
        say("Removing what is there …")
        _wipe(manifest)
    say("Copying the files …")
    _copy_back(manifest, source, progress=progress)
    say("Loading the database …")
    load_database(source / DUMP)
    _compare(manifest)
    if not same_history:
        start_epoch()
    return manifest


def _check_place(manifest: Manifest, *, wipe: bool) -> None:
    if others := _others_staying():
        raise BackupError(f"{others} connections use the database: stop web, workers and beat first.")
    if wipe:
        return
    if count_rows():
        raise BackupError("The database is not empty. With --wipe, what is there is deleted.")
    for root in _restored_folders(manifest).values():
        if root.is_dir() and any(root.iterdir()):
            raise BackupError(f"{root} is not empty. With --wipe, what is there is deleted.")


def _check_objects(manifest: Manifest, *, without: bool, say: Say) -> None:
    missing = missing_objects(manifest.objects)
    if not missing:
        return
    told = f"{len(missing):,} of {len(manifest.objects):,} objects that the backup names are not in {store_address()}"
    if not without:
        raise BackupError(
            f"{told} (they were in {manifest.store}), {missing[0]} for one. Bring them back from the bucket's own "
            "versions or copies, or go on without them: --without-objects."
        )
    say(f"{told}: what they hold is lost.")


def _others_staying() -> int:
    deadline = time.monotonic() + LEAVING_SECONDS
    while (others := others_connected()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return others


def _restored_folders(manifest: Manifest) -> dict[str, Path]:
    """Where the backup's folders go; artifacts that it does not hold are left alone."""
    known = folders()
    if manifest.artifacts_included and "artifacts" not in known:
        raise BackupError("The backup holds artifacts, and the artifact store here is no folder.")
    return {name: root for name, root in known.items() if name != "artifacts" or manifest.artifacts_included}


def _wipe(manifest: Manifest) -> None:
    empty_database()
    for root in _restored_folders(manifest).values():
        for entry in root.iterdir() if root.is_dir() else ():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _copy_back(manifest: Manifest, source: Path, *, progress: Progress) -> None:
    roots = _restored_folders(manifest)
    for file in manifest.files:
        name, _, below = file.path.partition("/")
        written = copy_with_hash(source / FILES / file.path, roots[name] / below, progress=progress)
        if written != (file.size_bytes, file.sha256):
            raise BackupError(f"{roots[name] / below} is not what the backup holds.")


def _compare(manifest: Manifest) -> None:
    found = count_rows()
    if differing := sorted(name for name in manifest.tables | found if manifest.tables.get(name) != found.get(name)):
        raise BackupError(f"After loading, tables differ from the backup: {', '.join(differing)}.")
