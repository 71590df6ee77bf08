"""Reward models that score what a policy wrote, for whichever recipe samples."""

from typing import Any

from training.core.errors import UsageError
from training.core.halving import MicroBatchBudget
from training.core.modeling import choose_autocast
from training.core.reward_sources.episodes import RewardSource
from training.core.reward_sources.grammar import RewardSpec
from training.core.reward_sources.making import make_sources
from training.core.reward_sources.models import Reading
from training.core.tokens import ChatEncoder
from training.recipes.launch import Session

# Sampling keeps no activations: so many times the tokens of a training micro-batch go at once.
SAMPLING_SHARE = 4


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


def load_judge(session: Session[Any], folder: str, *, flag: str, name: str, reading: Reading) -> RewardSource:
    """The reward model that a flag names, as a source of scores called ``name``.

    Raises:
        UsageError: it cannot be used; the message names the flag.
    """
    spec = RewardSpec("model", folder, 1.0, f"model:{folder}")
    try:
        (judge,) = make_sources(
            [spec], (), reading=reading, say=lambda message: session.say(f"{name}: {message.partition(': ')[2]}")
        )
    except UsageError as error:
        raise UsageError(str(error).replace(f"--reward {spec.text}", flag, 1)) from None
    judge.name = name
    return judge
