"""Checkpoints are whole or ignored, and give weights and optimizer back tensor by tensor."""

from pathlib import Path

import pytest
import torch
from torch import nn

from training.core.checkpoints import (
    Checkpoint,
    CheckpointSaver,
    list_checkpoints,
    load_checkpoint,
    newest_good_checkpoint,
    save_checkpoint,
)
from training.core.modeling import make_optimizer


def trained(steps: int) -> tuple[nn.Module, torch.optim.Optimizer, dict[str, nn.Parameter]]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    optimizer, parameters = make_optimizer(module.named_parameters(), learning_rate=0.1, weight_decay=0.01)
    for _ in range(steps):
        step(module, optimizer)
    return module, optimizer, parameters


def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    inputs = torch.arange(8.0).reshape(2, 4)
    optimizer.zero_grad()
    module(inputs).square().sum().backward()
    optimizer.step()


def save(folder: Path, number: int, *, steps: int = 1, keep: int = 2) -> Checkpoint:
    _, optimizer, parameters = trained(steps)
    return save_checkpoint(
        folder, step=number, parameters=dict(parameters), optimizer=optimizer, state={"skipped_steps": 3}, keep=keep
    )


def test_training_goes_on_as_if_never_interrupted(tmp_path: Path) -> None:
    straight, _, _ = trained(4)
    _, optimizer, parameters = trained(2)
    checkpoint = save_checkpoint(
        tmp_path, step=2, parameters=dict(parameters), optimizer=optimizer, state={"skipped_steps": 3}, keep=2
    )
    module, optimizer, parameters = trained(0)
    state = load_checkpoint(checkpoint, parameters=parameters, optimizer=optimizer)
    assert state == {"step": 2, "skipped_steps": 3}
    for _ in range(2):
        step(module, optimizer)
    for (name, value), (_, expected) in zip(module.named_parameters(), straight.named_parameters(), strict=True):
        assert torch.equal(value, expected), name


def test_only_safetensors_and_json(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 1)
    assert sorted(path.name for path in checkpoint.path.iterdir()) == [
        "manifest.json", "optimizer.safetensors", "state.json", "weights.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_harmed_checkpoint_is_passed_over_for_the_older(tmp_path: Path, file: str, harm: str) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2).path / file
    raw = bytearray(path.read_bytes())
    if harm == "remove":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(raw[: len(raw) // 2])
    else:
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
    found = newest_good_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1


def test_what_was_never_renamed_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "step-2.tmp").mkdir()
    (tmp_path / "step-two").mkdir()
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [1]
    assert save(tmp_path, 2).step == 2  # the leftover does not stand in the way
    assert not (tmp_path / "step-2.tmp").exists()


def test_a_checkpoint_under_another_ones_name_is_not_good(tmp_path: Path) -> None:
    save(tmp_path, 1).path.rename(tmp_path / "step-9")
    assert newest_good_checkpoint(tmp_path) is None
    assert newest_good_checkpoint(tmp_path / "absent") is None


def test_the_newest_are_kept_by_number_not_by_name(tmp_path: Path) -> None:
    for number in (8, 9, 10):
        save(tmp_path, number)
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [10, 9]


def test_a_step_is_published_once(tmp_path: Path) -> None:
    _, optimizer, parameters = trained(1)
    saver = CheckpointSaver(tmp_path, parameters=dict(parameters), optimizer=optimizer, keep=2, saved_step=0)
    saver.save(0, state={})
    assert list_checkpoints(tmp_path) == []
    saver.save(1, state={})
    before = (tmp_path / "step-1").stat().st_mtime_ns
    saver.save(1, state={})
    assert (tmp_path / "step-1").stat().st_mtime_ns == before


def test_a_checkpoint_of_other_parameters_is_refused(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 1)
    other = nn.Linear(2, 2)
    optimizer, parameters = make_optimizer(other.named_parameters(), learning_rate=0.1, weight_decay=0)
    with pytest.raises(ValueError, match="other parameters"):
        load_checkpoint(checkpoint, parameters=parameters, optimizer=optimizer)
