"""Removing the files of a deleted model from the folder of runs and from the bucket, and nothing else.

Each folder is renamed before anything in it is removed, so nobody finds half a model; what a broken-off removal leaves
has a name that only the next removal knows. Links are never followed: of one that stands in the place of a folder the
link itself goes, and a way that leads through one is refused.
"""

import os
import shutil
from pathlib import Path, PurePosixPath

from django.conf import settings

from training.models import ModelVersion, Run
from training.selectors_store import folder_name, results_of, store_of
from training.store import cache
from training.store.bundles import Bundle, plain
from training.store.errors import StoreError
from training.store.opening import open_store

# What a recipe writes beside the folder `model` that is the model, too, or was only for making it.
OF_A_RUN = ("adapter", "ensemble", "judge", "checkpoints")


class NotRemoved(Exception):
    """Files of a model are still there; the message says why."""


def remove_places(model: ModelVersion) -> None:
    """Removes the model's folder, and with a run's `out/model` its adapter, members, judge and checkpoints; where
    artifacts are in a bucket, from there, too.

    Raises:
        NotRemoved: something is still there.
    """
    _remove_stored(model)
    try:
        places = [place for place in _places(model) if _stands_inside(place)]
        trash = [_to_trash(place) for place in places]
        for each in trash:
            _remove(each)
    except OSError as error:
        raise NotRemoved(f"{error.strerror or error}: {error.filename or model.path}") from error


def _remove_stored(model: ModelVersion) -> None:
    """Takes the model's files out of the pictures of its run; what else the run left stays.

    Raises:
        NotRemoved: the bucket cannot be reached, or refuses.
    """
    run = model.run
    if run is None or (store := store_of(run)) is None:
        return
    gone = {folder_name(model), *OF_A_RUN}
    left = tuple(one for one in results_of(run) if one.path.split("/")[0] not in gone)
    try:
        result = Bundle(run.attempt, None, left) if left else None
        if result is not None:
            store.rewrite(result)
        store.keep([], result=result)
        store.store.drop_uploads(f"{store.prefix}/")
    except StoreError as error:
        raise NotRemoved(str(error)) from error
    cache.forget([cache.entry_of(store).name])
    Run.objects.filter(pk=run.pk, stored__isnull=False).update(stored={"files": plain(left), "checkpoints": []})


def _places(model: ModelVersion) -> list[Path]:
    """Where the model's files are.

    Raises:
        NotRemoved: the row names a place outside the folder of runs.
    """
    parts = PurePosixPath(model.folder).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise NotRemoved(f"The folder of the model is not one under the folder of runs: {model.folder!r}.")
    root = Path(settings.RUNS_ROOT).resolve()  # may itself well be a link
    if not root.is_dir() and open_store() is not None:
        return []  # only workers keep runs on their disks
    if not root.is_dir():
        raise NotRemoved(f"The folder of runs is not there: {root}.")
    folder = root.joinpath(*parts)
    beside = OF_A_RUN if parts[-2:] == ("out", "model") else ()
    return [folder, *(folder.with_name(name) for name in beside)]


def _stands_inside(place: Path) -> bool:
    """Whether the folder that holds the place is there, reached without a link from the folder of runs.

    Raises:
        NotRemoved: a link leads there.
    """
    if not place.parent.exists():
        return False
    if place.parent.resolve() != place.parent:
        raise NotRemoved(f"The way to {place} leads through a link; links are not followed.")
    return True


def _to_trash(place: Path) -> Path:
    """Renames the place, if it is there, and returns the name under which it is to be removed."""
    trash = place.with_name(f".trash-{place.name}")
    if os.path.lexists(place):
        _remove(trash)  # of a removal that was broken off
        os.rename(place, trash)
    return trash


def _remove(place: Path) -> None:
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)
