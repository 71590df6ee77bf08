"""What of the bucket a backup names, where artifacts are in one: objects that its rows need, with size and hash.

The objects themselves are not copied: versions and replication are the bucket's own. But a restore is refused where one
of them is missing, so nobody learns of it from a page.
"""

from collections.abc import Iterable

from annotate.models import Snapshot
from training.models import Run
from training.selectors_store import results_of, store_of
from training.store.errors import StoreError
from training.store.opening import open_store
from webapp.backups.manifest import BackupError, StoredFile


def store_address() -> str:
    """Where artifacts are, if that is a bucket; empty for a folder."""
    store = open_store()
    return store.address if store else ""


def objects_named(*, checkpoints: bool) -> list[StoredFile]:
    """Every object of the bucket that the database needs, by its name below the prefix; checkpoints as the bucket has
    them now.

    Raises:
        BackupError: the bucket cannot be read.
    """
    if open_store() is None:
        return []
    found = {
        one.file: StoredFile(one.file, one.size_bytes, one.sha256)
        for one in Snapshot.objects.filter(state=Snapshot.State.FROZEN).order_by("pk").iterator()
    }
    try:
        for run in Run.objects.filter(attempt__gte=1).order_by("pk").iterator():
            found |= _of_run(run, checkpoints=checkpoints)
    except StoreError as error:
        raise BackupError(str(error)) from error
    return list(found.values())


def _of_run(run: Run, *, checkpoints: bool) -> dict[str, StoredFile]:
    store = store_of(run)
    assert store is not None
    files = list(results_of(run))
    if checkpoints and run.stored and run.stored.get("checkpoints"):
        files += [file for bundle in store.bundles() for file in bundle.files]
    return {store.key(one): StoredFile(store.key(one), one.size_bytes, one.sha256) for one in files}


def missing_objects(named: Iterable[StoredFile]) -> list[str]:
    """Those that are not in the bucket, or have another length there.

    Raises:
        BackupError: artifacts are in no bucket here, or it cannot be read.
    """
    wanted = list(named)
    if not wanted:
        return []
    store = open_store()
    if store is None:
        raise BackupError("The backup names objects of a bucket: set PLACKETT_ARTIFACTS to where they are.")
    try:
        there = {name: size for below in ("snapshots/", "runs/") for name, size in store.names(below)}
    except StoreError as error:
        raise BackupError(str(error)) from error
    return [one.path for one in wanted if there.get(one.path) != one.size_bytes]
