"""What a worker brings to its machine before a trainer starts, where it is in the bucket."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from django.conf import settings

from annotate.models import Snapshot
from training.models import ModelVersion
from training.selectors_store import results_of, store_of
from training.store import cache
from training.store.errors import StoreAway, StoreError
from training.store.patience import Check, beside, patiently

if TYPE_CHECKING:
    from training.store.objects import ObjectStore

Pulse = Callable[[], None]
"""Called at least once a second while something takes its time; raises when the attempt is to end."""

Result = TypeVar("Result")


class CannotStart(Exception):
    """The run cannot begin, however often it is tried; the message is for people."""


def reach(work: Callable[[Check], Result], *, pulse: Pulse, tell: bool = True) -> Result:
    """What the work with the store gives; tried for as long as the settings say while the store is away.

    Args:
        tell: also what the store does not have, or has damaged, is a reason not to start; else a StoreError.

    Raises:
        CannotStart: with the reason.
    """
    seconds = settings.STORE_PATIENCE_SECONDS
    try:
        return beside(lambda check: patiently(lambda: work(check), seconds=seconds, check=check), pulse=pulse)
    except StoreAway as error:
        raise CannotStart(f"{error} It was tried for {seconds} s; resume the run when the store answers.") from error
    except StoreError as error:
        if not tell:
            raise
        raise CannotStart(str(error)) from error


def fetch_snapshot(store: "ObjectStore", snapshot: Snapshot, target: Path, *, pulse: Pulse) -> None:
    """Brings the snapshot's file.

    Raises:
        CannotStart: it is not there, or not what was frozen.
    """
    reach(
        lambda check: store.fetch(
            snapshot.file, target, size=snapshot.size_bytes, sha256=snapshot.sha256, check=check
        ),
        pulse=pulse,
    )  # fmt: skip


def fetch_model(version: ModelVersion, *, pulse: Pulse) -> Path | None:
    """The folder of a model that is in the bucket; None if it is in none.

    Raises:
        CannotStart: it cannot be had.
    """
    files = results_of(version.run)
    if version.run is None or not files or (store := store_of(version.run)) is None:
        return None
    output = reach(lambda check: cache.fetch_results(store, files, check=check), pulse=pulse)
    return output / Path(version.folder).name
