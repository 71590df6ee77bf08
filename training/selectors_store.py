"""Reads: what of runs and models is in the bucket, where artifacts are in one. Who may see them is asked elsewhere."""

import logging
from pathlib import Path

from training.base_models import is_model_folder
from training.models import ModelVersion, Run
from training.store import cache
from training.store.bundles import RunStore, StoredFile, from_plain
from training.store.errors import StoreError
from training.store.opening import open_store

logger = logging.getLogger(__name__)


def store_of(run: Run) -> RunStore | None:
    """The run's part of the bucket; None where artifacts are a folder."""
    store = open_store()
    return None if store is None else RunStore(store, run.store_prefix)


def results_of(run: Run | None) -> tuple[StoredFile, ...]:
    """The files of a finished run that are in the bucket, by their path below the output folder."""
    return () if run is None else from_plain((run.stored or {}).get("files", ()))


def stored_files(model: ModelVersion) -> tuple[StoredFile, ...]:
    """The model's own files in the bucket; none if it is in none."""
    return tuple(one for one in results_of(model.run) if one.path.startswith(f"{folder_name(model)}/"))


def folder_name(model: ModelVersion) -> str:
    """Of the model, below its run's output folder."""
    return Path(model.folder).name


def readable_folder(model: ModelVersion) -> Path | None:
    """A folder in which the model's small files and the heads of its weights can be read: its own, or a sketch of it
    from the bucket; None if there is neither now."""
    if is_model_folder(model.path):
        return model.path
    files = stored_files(model)
    if model.run is None or not files or (store := store_of(model.run)) is None:
        return None
    try:
        return cache.sketch_model(store, files, folder=folder_name(model))
    except (StoreError, OSError) as error:
        logger.warning("model %s cannot be looked at: %s", model.pk, error)
        return None


def result_file(run: Run, name: str) -> Path | None:
    """A file that a run left, on this machine's disk; None if there is none, or it cannot be had now."""
    path = run.folder / "out" / name
    if path.is_file():
        return path
    found = next((one for one in results_of(run) if one.path == name), None)
    if found is None or (store := store_of(run)) is None:
        return None
    try:
        return cache.fetch_file(store, found, check=lambda: None)
    except (StoreError, OSError) as error:
        logger.warning("run %s: %s cannot be had: %s", run.pk, name, error)
        return None
