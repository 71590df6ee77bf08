"""What a run measured of its model before the first step, kept for the end: after that step it cannot be had again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from training.core.errors import TrainingError
from training.core.files import published_folder, sha256_of
from training.recipes.configs import Config
from training.recipes.launch import Session

NAME = "start"
FILE = "measured.safetensors"

Numbers = NDArray[Any]


class StartFile:
    """Arrays of numbers by name in the run's folder; each checkpoint holds the hash of the file (``sha256``)."""

    def __init__(self, session: Session[Config]) -> None:
        self._session = session
        self._path: Path = session.folder / NAME / FILE
        self.sha256 = ""

    def write(self, arrays: Mapping[str, Numbers]) -> None:
        """Keep what all processes hold alike; the main one writes, and all know the hash."""
        if self._session.world.is_main:
            with published_folder(self._path.parent) as scratch:
                save_file({name: np.ascontiguousarray(values) for name, values in arrays.items()}, scratch / FILE)
            self.sha256 = sha256_of(self._path)
        self.sha256 = self._session.world.from_main(self.sha256)

    def read(self, sha256: str) -> dict[str, Numbers]:
        """What was kept, as a checkpoint knows it.

        Raises:
            TrainingError: the file is gone, or another.
        """
        try:
            if sha256_of(self._path) == sha256:
                self.sha256 = sha256
                found: dict[str, Numbers] = load_file(self._path)
                return found
        except (OSError, SafetensorError):
            pass
        raise TrainingError(f"{self._path}, which this run needs to go on, is gone or damaged")
