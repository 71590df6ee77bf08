"""Checkpoints: what a resume needs, published whole and checked before use. safetensors and JSON, no pickle.

Sharded parameters are written whole, as others are: the files do not say how a model was spread.
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.core.distributed import is_sharded, like_shards, whole_tensor
from training.core.errors import TrainingError
from training.core.files import published_folder, read_json, sha256_of, sync, write_json

MANIFEST = "manifest.json"
CHECKPOINT_SECONDS = 600.0


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint: the folder and the step at whose end it was taken."""

    path: Path
    step: int


class CheckpointSaver:
    """Publishes the state of a run, each step at most once, and knows when the next one is overdue."""

    def __init__(
        self,
        folder: Path,
        *,
        parameters: dict[str, Tensor],
        optimizer: torch.optim.Optimizer,
        keep: int,
        saved_step: int,
        writes: bool = True,
    ) -> None:
        """Args: as ``save_checkpoint``; ``saved_step`` is the step that the run starts from."""
        self._folder, self._parameters, self._optimizer, self._keep = folder, parameters, optimizer, keep
        self._writes = writes
        self._saved_step, self._saved_at = saved_step, time.monotonic()

    def is_overdue(self) -> bool:
        """Whether the last checkpoint (or the start) is more than 10 minutes ago."""
        return time.monotonic() - self._saved_at > CHECKPOINT_SECONDS

    def save(self, step: int, *, state: dict[str, Any], protect: int | None = None) -> None:
        """Publish the state at the end of ``step``, unless that is published already; see ``save_checkpoint``."""
        if step == self._saved_step:
            return
        save_checkpoint(
            self._folder,
            step=step,
            parameters=self._parameters,
            optimizer=self._optimizer,
            state=state,
            keep=self._keep,
            protect=protect,
            writes=self._writes,
        )
        self._saved_step, self._saved_at = step, time.monotonic()


def save_checkpoint(
    folder: Path,
    *,
    step: int,
    parameters: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    keep: int,
    protect: int | None = None,
    writes: bool = True,
) -> Checkpoint:
    """Publish ``folder/step-N`` and remove all but the newest ``keep`` and that of the step to ``protect``.

    Args:
        parameters: the trained parameters by name, in the order in which the optimizer was given them. If any is
            sharded, all processes call this, and one of them ``writes``.
        state: small JSON values to find again.
    """
    target = folder / f"step-{step}"
    moments, counters = _split_optimizer(optimizer, list(parameters))
    weights, moments = _gathered(parameters, keep=writes), _gathered(moments, keep=writes)
    if not writes:
        return Checkpoint(target, step)
    with published_folder(target) as scratch:
        save_file(weights, scratch / "weights.safetensors")
        save_file(moments, scratch / "optimizer.safetensors")
        write_json(scratch / "state.json", {"step": step, "optimizer": counters, **state})
        files = sorted(path for path in scratch.iterdir())
        for path in files:
            sync(path)
        write_json(scratch / MANIFEST, {"step": step, "sha256": {path.name: sha256_of(path) for path in files}})
    for old in list_checkpoints(folder)[keep:]:
        if old.step != protect:
            shutil.rmtree(old.path, ignore_errors=True)
    for unfinished in folder.glob("step-*.tmp"):  # of a process that was killed over it
        shutil.rmtree(unfinished, ignore_errors=True)
    return Checkpoint(target, step)


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """Published checkpoints by name, the newest first; whether they are good is not looked at."""
    found = []
    for path in folder.glob("step-*"):
        number = path.name.removeprefix("step-")
        if path.is_dir() and number.isdigit():
            found.append(Checkpoint(path, int(number)))
    return sorted(found, key=lambda checkpoint: -checkpoint.step)


def newest_good_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint whose files all have the hashes of its manifest, or None."""
    return next((checkpoint for checkpoint in list_checkpoints(folder) if is_good(checkpoint)), None)


def is_good(checkpoint: Checkpoint) -> bool:
    """Whether every file that the manifest names is there with its hash."""
    manifest = read_json(checkpoint.path / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("step") != checkpoint.step or not manifest.get("sha256"):
        return False
    try:
        return all(sha256_of(checkpoint.path / name) == value for name, value in manifest["sha256"].items())
    except OSError:
        return False


def load_checkpoint(
    checkpoint: Checkpoint, *, parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put weights and optimizer back as they were and return the small values.

    Raises:
        ValueError: the checkpoint is of other parameters.
    """
    some = next(iter(parameters.values()))
    # A sharded model may be one that no device holds whole.
    device = "cpu" if is_sharded(some) else str(some.device)
    weights = load_file(checkpoint.path / "weights.safetensors", device=device)
    if {name: value.shape for name, value in weights.items()} != {name: p.shape for name, p in parameters.items()}:
        raise ValueError(f"{checkpoint.path} is of other parameters")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(like_shards(weights[name], parameter))
    moments = load_file(checkpoint.path / "optimizer.safetensors", device=device)
    state: dict[str, Any] = read_json(checkpoint.path / "state.json")
    _join_optimizer(optimizer, parameters, moments, state.pop("optimizer"))
    return state


def load_weights(folder: Path, step: int, *, parameters: dict[str, torch.nn.Parameter]) -> None:
    """Put the weights of a published checkpoint back, and nothing else.

    Raises:
        TrainingError: the checkpoint is not there whole.
    """
    if not is_good(Checkpoint(folder / f"step-{step}", step)):
        raise TrainingError(f"the checkpoint of step {step}, whose weights were best, is gone or damaged")
    some = next(iter(parameters.values()))
    weights = load_file(folder / f"step-{step}" / "weights.safetensors", device="cpu")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(like_shards(weights[name].to(some.device), parameter))


def _gathered(tensors: dict[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Whole tensors by name, as files want them; none where they are not kept."""
    found = ((name, whole_tensor(value, keep=keep)) for name, value in tensors.items())
    return {name: value.contiguous() for name, value in found if value is not None}


def _split_optimizer(
    optimizer: torch.optim.Optimizer, names: list[str]
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """The optimizer's tensors as ``KEY/PARAMETER`` and its groups' plain numbers."""
    whole = optimizer.state_dict()
    tensors = {
        f"{key}/{names[number]}": value for number, values in whole["state"].items() for key, value in values.items()
    }
    return tensors, whole["param_groups"]


def _join_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, torch.nn.Parameter],
    tensors: dict[str, Tensor],
    groups: list[dict[str, Any]],
) -> None:
    numbers = {name: number for number, name in enumerate(parameters)}
    state: dict[int, dict[str, Tensor]] = {}
    for title, value in tensors.items():
        key, name = title.split("/", 1)
        # Moments are spread as their parameter is; the count of steps is a plain number.
        spread = like_shards(value, parameters[name]) if value.ndim else value
        state.setdefault(numbers[name], {})[key] = spread
    optimizer.load_state_dict({"state": state, "param_groups": groups})
