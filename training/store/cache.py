"""What this machine keeps of the store, under `settings.FETCHED_ROOT`: each part can be thrown away and fetched again.

fetched/RUN/out/…       the results of a run, without what only people read: what another run reads
fetched/RUN/sketch/…    a model's small files, and of its weights the heads alone: what a page reads
fetched/RUN/SHA256      a single file
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

from training.store.bundles import CHECKPOINTS, RunStore, StoredFile
from training.store.patience import Check

KEPT_AT_LEAST = 8
UNUSED_SECONDS = 24 * 3600.0
# What people read of a run and no other run does; it may be long.
FOR_PEOPLE = ("metrics.jsonl", "samples.jsonl", "responses.jsonl", "tokens.jsonl", "report.html", "plots")
SMALL_BYTES = 32 << 20
HEAD_BYTES = 8
WAIT_SECONDS = 0.2
LARGEST_HEAD_BYTES = 100_000_000


def entry_of(run: RunStore) -> Path:
    """The folder of what was fetched of a run."""
    return Path(settings.FETCHED_ROOT) / Path(run.prefix).name


def fetch_results(run: RunStore, files: Sequence[StoredFile], *, check: Check) -> Path:
    """The output folder of a finished run, as far as other runs read it; fetched unless it is here.

    Raises:
        StoreError, OSError: it could not be brought.
    """
    target = entry_of(run) / "out"
    with _alone(target.parent, check):
        if not target.is_dir():
            run.bring([one for one in files if _is_read_by_runs(one.path)], target, check=check)
        _touch(target.parent)
    return target


def adopt_results(run: RunStore, output: Path) -> None:
    """Takes over the output folder of a run that was made here and is in the store; nobody need fetch it then."""
    target = entry_of(run) / "out"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
    if target.exists():
        shutil.rmtree(output, ignore_errors=True)
    else:
        os.rename(output, target)
    _touch(target.parent)


def fetch_file(run: RunStore, file: StoredFile, *, check: Check) -> Path:
    """A single file of a run.

    Raises:
        StoreError, OSError: it could not be brought.
    """
    target = entry_of(run) / file.sha256
    with _alone(target.parent, check):
        if not target.is_file():
            run.store.fetch(run.key(file), target, size=file.size_bytes, sha256=file.sha256, check=check)
        _touch(target.parent)
    return target


def sketch_model(run: RunStore, files: Sequence[StoredFile], *, folder: str) -> Path:
    """A folder like that of a model in which the weights have their heads and their length, and nothing more.

    Raises:
        StoreError, OSError: it could not be brought.
    """
    target = entry_of(run) / "sketch" / folder
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=target.parent, suffix=".part"))
        try:
            for one in files:
                if one.path.startswith(f"{folder}/") and (name := one.path.removeprefix(f"{folder}/")):
                    _sketch(run, one, draft / name)
            if not target.is_dir():
                os.rename(draft, target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    _touch(entry_of(run))
    return target


def _sketch(run: RunStore, file: StoredFile, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix != ".safetensors" and file.size_bytes <= SMALL_BYTES:
        run.store.fetch(run.key(file), target, size=file.size_bytes, sha256=file.sha256, check=lambda: None)
        return
    with target.open("wb") as sketch:
        if target.suffix == ".safetensors":
            length = int.from_bytes(b"".join(run.store.blocks(run.key(file), stop=HEAD_BYTES)), "little")
            stop = min(HEAD_BYTES + min(length, LARGEST_HEAD_BYTES), file.size_bytes)
            for block in run.store.blocks(run.key(file), stop=stop):
                sketch.write(block)
        sketch.truncate(file.size_bytes)


def forget(names: Collection[str]) -> None:
    """Removes what was fetched of these runs, by the last part of their prefix."""
    for name in names:
        shutil.rmtree(Path(settings.FETCHED_ROOT) / name, ignore_errors=True)


def entries() -> list[str]:
    """Of which runs something was fetched, by the last part of their prefix."""
    root = Path(settings.FETCHED_ROOT)
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir()) if root.is_dir() else []


def forget_unused() -> None:
    """Removes what nobody used for a day, beyond the entries that were used last."""
    root = Path(settings.FETCHED_ROOT)
    used = sorted(((root / name).stat().st_mtime, name) for name in entries())
    before = time.time() - UNUSED_SECONDS
    forget([name for at, name in used[:-KEPT_AT_LEAST] if at < before])


@contextmanager
def _alone(entry: Path, check: Check) -> Iterator[None]:
    """Waits until no other process of this machine fetches the same."""
    entry.mkdir(parents=True, exist_ok=True)
    with entry.with_name(f".{entry.name}.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                check()
                time.sleep(WAIT_SECONDS)
        yield


def _is_read_by_runs(path: str) -> bool:
    return path.split("/")[0] not in FOR_PEOPLE


def _touch(entry: Path) -> None:
    os.utime(entry)
