"""Removing the files of a deleted model from the folder of runs, and nothing else.

Each folder is renamed before anything in it is removed, so nobody finds half a model; what a broken-off removal leaves
has a name that only the next removal knows. Links are never followed: of one that stands in the place of a folder the
link itself goes, and a way that leads through one is refused.
"""

import os
import shutil
from pathlib import Path, PurePosixPath

from django.conf import settings

from training.models import ModelVersion

# What a recipe writes beside the folder `model` that is the model, too, or was only for making it.
OF_A_RUN = ("adapter", "ensemble", "judge", "checkpoints")


class NotRemoved(Exception):
    """Files of a model are still there; the message says why."""


def remove_places(model: ModelVersion) -> None:
    """Removes the model's folder, and with a run's `out/model` its adapter, members, judge and checkpoints.

    Raises:
        NotRemoved: something is still there.
    """
    try:
        places = [place for place in _places(model) if _stands_inside(place)]
        trash = [_to_trash(place) for place in places]
        for each in trash:
            _remove(each)
    except OSError as error:
        raise NotRemoved(f"{error.strerror or error}: {error.filename or model.path}") from error


def _places(model: ModelVersion) -> list[Path]:
    """Where the model's files are.

    Raises:
        NotRemoved: the row names a place outside the folder of runs.
    """
    parts = PurePosixPath(model.folder).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise NotRemoved(f"The folder of the model is not one under the folder of runs: {model.folder!r}.")
    root = Path(settings.RUNS_ROOT).resolve()  # may itself well be a link
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
