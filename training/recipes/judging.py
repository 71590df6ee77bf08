"""Reward models that score what a policy wrote, for whichever recipe samples."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.core.errors import UsageError
from training.core.files import read_json
from training.core.halving import MicroBatchBudget
from training.core.modeling import choose_autocast
from training.core.reward_sources.episodes import PromptLine, RewardSource
from training.core.reward_sources.grammar import RewardSpec, parse_reward
from training.core.reward_sources.making import make_sources
from training.core.reward_sources.models import Reading
from training.core.runfolder import REPORT_NAME, read_run
from training.core.tokens import ChatEncoder
from training.recipes.launch import Session

# Sampling keeps no activations: so many times the tokens of a training micro-batch go at once.
SAMPLING_SHARE = 4


@dataclass(frozen=True)
class JudgeFacts:
    """Where the judge is from: ``source`` ("given", "made" or why there is none), and whether nothing that it learned
    from taught the reward model; None where that is not known. ``accuracy`` is that on the validation rankings of its
    run, None where it is no run of ours.
    """

    source: str
    disjoint: bool | None = None
    accuracy: dict[str, Any] | None = None


def make_reading(
    session: Session[Any],
    encoder: ChatEncoder,
    budget: MicroBatchBudget,
    *,
    longest_prompt: int,
    max_response_length: int,
) -> Reading:
    """How reward models read what a policy wrote; lengths are in its tokens."""
    config = session.config
    return Reading(
        encoder=encoder,
        budget=budget,
        autocast_dtype=choose_autocast(config.dtype, session.device),
        show_thinking=config.thinking == "show",
        longest_prompt=longest_prompt,
        max_response_length=max_response_length,
    )


def load_judge(
    session: Session[Any],
    folder: str,
    *,
    flag: str,
    name: str,
    reading: Reading,
    prompts: Iterable[PromptLine] = (),
) -> RewardSource:
    """The reward model that a flag names, as a source of scores called ``name``.

    Args:
        prompts: that will be answered; it looks at each of them.

    Raises:
        UsageError: it cannot be used; the message names the flag.
    """
    spec = RewardSpec("model", folder, 1.0, f"model:{folder}")
    try:
        (judge,) = make_sources(
            [spec], prompts, reading=reading, say=lambda message: session.say(f"{name}: {message.partition(': ')[2]}")
        )
    except UsageError as error:
        raise UsageError(str(error).replace(f"--reward {spec.text}", flag, 1)) from None
    judge.name = name
    return judge


def are_disjoint(judge: dict[str, Any] | None, reward: dict[str, Any] | None) -> bool | None:
    """Whether two runs learned from different halves of one file; None where that is not known: one of them is no run
    of ours, or the files are not the same."""
    if judge is None or reward is None or judge["data_sha256"] != reward["data_sha256"]:
        return None
    halves = {run["config"].get("half", "all") for run in (judge, reward)}
    return halves == {"first", "second"}


def reward_run_at(name: str) -> dict[str, Any] | None:
    """``run.json`` of the reward run whose folder, or whose model, a flag names."""
    for place in (Path(name), Path(name).parent):
        if (run := read_run(place)) is not None and run.get("recipe") == "reward":
            return run
    return None


def accuracy_at(session: Session[Any], name: str) -> dict[str, Any] | None:
    """On the validation rankings of its own run."""
    reports = (read_json(place / REPORT_NAME) for place in (Path(name), Path(name).parent))
    found = next((report for report in reports if isinstance(report, dict) and report.get("kind") == "reward"), {})
    accuracy: dict[str, Any] | None = session.world.from_main((found.get("validation") or {}).get("accuracy"))
    return accuracy


def reward_run(rewards: Sequence[str]) -> dict[str, Any] | None:
    """``run.json`` of the run that made the reward model, where one of the rewards names a folder of it."""
    for text in rewards:
        spec = parse_reward(text)
        if spec.kind in ("model", "ensemble") and (run := reward_run_at(spec.argument)) is not None:
            return run
    return None


def teacher_of(model: str) -> dict[str, Any] | None:
    """``run.json`` of what taught a policy of ours preferences: its reward model's run, or with DPO its own; None where
    that is not known."""
    run = read_run(Path(model).parent) or {}
    config = run.get("config") or {}
    if run.get("recipe") == "dpo":
        return run
    if run.get("recipe") == "ppo":
        named = config.get("reward_model")
        return reward_run(([f"model:{named}"] if named else []) + list(config.get("reward") or ()))
    return None
