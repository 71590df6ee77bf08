"""What an attempt has to do with the bucket, where artifacts are in one: from bringing back what it goes on from to the
results of a finished run, which are waited for."""

import logging
import shutil
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from training.models import ModelVersion, Run, RunAttempt
from training.runner.keeper import Keeper
from training.runner.reaching import CannotStart, Pulse, reach
from training.selectors_store import store_of
from training.store import cache
from training.store.bundles import TURN_NAME, Bundle, RunStore, StoredFile, local_checkpoints, plain
from training.store.errors import Damaged, StoreError
from training.store.patience import Check, beside, patiently

logger = logging.getLogger(__name__)

KEPT_HERE = timedelta(days=1)


# --- before the trainer starts ---------------------------------------------------------------------------------------


def bring_back(run: Run, store: RunStore, *, attempt: int, pulse: Pulse) -> tuple[list[Bundle], str]:
    """Makes the output folder on this disk the one to go on from: it stays if nobody else had the run meanwhile, else
    the newest whole picture of the bucket takes its place, or nothing.

    Returns:
        The pictures in the bucket, the newest first, and the name of the one that was taken; "" for none.

    Raises:
        CannotStart: the bucket cannot be reached.
    """
    found = reach(lambda check: store.bundles(), pulse=pulse)
    turn, output = run.folder / TURN_NAME, run.folder / "out"
    here, there = max(local_checkpoints(output), default=0), found[0].step or 0 if found else 0
    if _turn_of(turn) == attempt - 1 and here >= there:
        _take_turn(turn, attempt)
        return found, ""
    taken = next((one for one in found if _is_brought(store, one, output, pulse=pulse)), None)
    if taken is None:
        shutil.rmtree(output, ignore_errors=True)
    _take_turn(turn, attempt)
    return found, taken.name if taken else ""


def check_shared(run: Run, *, attempt: int) -> None:
    """Of another machine of the same attempt: all of them read the checkpoints that the first one writes.

    Raises:
        CannotStart: the folder of runs here is not that of the machine that holds the run.
    """
    if _turn_of(run.folder / TURN_NAME) != attempt:
        raise CannotStart(
            f"{run.folder} is not the folder of the machine that holds the run; see PLACKETT_RUNS_SHARED."
        )


def _is_brought(store: RunStore, bundle: Bundle, output: Path, *, pulse: Pulse) -> bool:
    """Whether the picture is here now; one that is not whole is passed over.

    Raises:
        CannotStart: the bucket is away.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        reach(lambda check: store.bring(bundle.files, output, check=check), pulse=pulse, tell=False)
    except StoreError as error:
        logger.warning("%s is passed over: %s", bundle.name, error)
        if isinstance(error, Damaged):
            # What is there with the right length is never sent again, and the trainer may well make the same anew.
            name = error.name
            reach(lambda check: store.store.remove([name]), pulse=pulse)
        return False
    return True


def _turn_of(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _take_turn(path: Path, attempt: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(attempt))


# --- when it has ended -----------------------------------------------------------------------------------------------


def put_results(run: Run, store: RunStore, *, attempt: int, pulse: Pulse) -> tuple[StoredFile, ...]:
    """Puts the folder of a run that came to its end into the bucket.

    Raises:
        StoreError: the bucket was away for longer than the settings say, or refuses.
    """

    def put(check: Check) -> tuple[StoredFile, ...]:
        bundle = store.publish(run.folder / "out", attempt=attempt, step=None, check=check, is_ours=lambda: True)
        return bundle.files if bundle else ()

    seconds = settings.STORE_PATIENCE_SECONDS
    return beside(lambda check: patiently(lambda: put(check), seconds=seconds, check=check), pulse=pulse)


# --- all of it, as an attempt sees it --------------------------------------------------------------------------------


class Storing:
    """What an attempt has to do with the bucket; does nothing where artifacts are a folder.

    Args:
        keeps: whether checkpoints and results are to be kept; not those of a try.
    """

    def __init__(self, run: Run, *, attempt: int, keeps: bool) -> None:
        self._run, self._attempt, self._keeps = run, attempt, keeps
        self._store = store_of(run)
        self._keeper: Keeper | None = None
        self._files: tuple[StoredFile, ...] = ()
        self._told: Bundle | None = None

    @property
    def is_on(self) -> bool:
        """Whether artifacts are in a bucket."""
        return self._store is not None

    def begin(self, *, pulse: Pulse) -> None:
        """Brings back what the run goes on from; tidies this machine's disk.

        Raises:
            CannotStart: the bucket cannot be reached.
        """
        if self._store is None:
            return
        tidy_disk(but=self._run)
        if not self._keeps:
            _take_turn(self._run.folder / TURN_NAME, self._attempt)
            return
        kept, taken = bring_back(self._run, self._store, attempt=self._attempt, pulse=pulse)
        RunAttempt.objects.filter(run=self._run, number=self._attempt).update(bundle=taken)
        self._keeper = Keeper(self._run, self._store, attempt=self._attempt, kept=kept)

    def follow(self) -> None:
        """The trainer works: its checkpoints are kept from now on."""
        if self._keeper is not None:
            self._keeper.start()

    def news(self) -> dict[str, object]:
        """What the run's row is to say of the bucket, if that changed since the last time; else nothing."""
        newest = self._keeper.newest if self._keeper else None
        if newest is None or newest is self._told:
            return {}
        self._told = newest
        return {"stored": self._row()}

    def flush(self, *, seconds: float, pulse: Pulse) -> None:
        """Gives a checkpoint that is on its way so many seconds; the next attempt may be on another machine."""
        if self._keeper is not None:
            self._keeper.hand_over(seconds=seconds, pulse=pulse)

    def close(self, *, seconds: float, pulse: Pulse) -> None:
        """Sends no more checkpoints after so many seconds."""
        if self._keeper is not None and not self._keeper.close(seconds=seconds, pulse=pulse):
            logger.warning("run %s: its last checkpoint is not in the store", self._run.pk)

    def put_results(self, *, pulse: Pulse) -> None:
        """Puts the results into the bucket.

        Raises:
            StoreError: that cannot be done.
        """
        if self._store is None or not self._keeps:
            return
        if self._keeper is not None:
            self._keeper.close(seconds=0, pulse=pulse)
            self._keeper.wait(pulse=pulse)
        self._files = put_results(self._run, self._store, attempt=self._attempt, pulse=pulse)

    def results(self) -> dict[str, object]:
        """What the row of a run that succeeded is to say of the bucket."""
        return {"stored": self._row()} if self._files else {}

    def clear(self, *, succeeded: bool) -> None:
        """The run is over: what this machine need not have is removed; another run may read the results from here."""
        if self._store is None or (self._keeps and not succeeded):
            return
        if self._files:
            cache.adopt_results(self._store, self._run.folder / "out")
        shutil.rmtree(self._run.folder, ignore_errors=True)

    def _row(self) -> dict[str, object]:
        newest = self._keeper.newest if self._keeper else None
        steps = newest.checkpoints if newest else []
        told = [{"step": step, "size_bytes": newest.size_of(step)} for step in steps] if newest else []
        return {"files": plain(self._files), "checkpoints": told}


def tidy_disk(*, but: Run) -> None:
    """Removes what this machine need not keep: folders of runs that are in the bucket, that others went on with, or
    that ended a day ago; what was fetched and nobody uses; and all of models that were deleted.

    Only folders that hold a turn are looked at: others were made before artifacts were in a bucket, and are the only
    copies.
    """
    root = Path(settings.RUNS_ROOT)
    turns = {int(path.parent.name): _turn_of(path) for path in root.glob(f"[0-9]*/{TURN_NAME}")}
    turns.pop(but.pk, None)
    runs = {run.pk: run for run in Run.objects.filter(pk__in=turns)}
    before = timezone.now() - KEPT_HERE
    for number, turn in turns.items():
        run = runs.get(number)
        if run is not None and (run.is_active or run.finished_at is None and run.attempt == turn):
            continue
        if run is None or run.attempt != turn or run.finished_at is None or run.finished_at < before:
            shutil.rmtree(root / str(number), ignore_errors=True)
    cache.forget_unused()
    deleted = ModelVersion.objects.filter(deleted_at__isnull=False, run__isnull=False).select_related("run")
    names = set(cache.entries())
    cache.forget([name for one in deleted.iterator() if one.run and (name := Path(one.run.store_prefix).name) in names])
