"""What every recipe does at its start, whatever it trains."""

import os
from collections.abc import Mapping

import torch
from transformers import AutoConfig

from training.core.encoding import Encoded, Rules, cache_roots, encode_snapshot
from training.core.errors import UsageError
from training.core.records import Snapshot
from training.core.schedule import Course, make_course
from training.core.tokens import ChatEncoder
from training.recipes.configs import BaseConfig, CommonConfig, Config
from training.recipes.launch import Session


def compute_repeatably(device: torch.device) -> None:
    """Have the same run give the same bits, where that can be had: on CPU."""
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        # That also fills fresh memory, against reads of what was never written; it costs time and changes no result.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def words_of(dropped: Mapping[str, int]) -> str:
    """Counts by reason, in words."""
    return ", ".join(f"{count} {name}" for name, count in sorted(dropped.items())) or "nothing"


def usable_length(config: BaseConfig) -> int:
    """--max-length, or what the model can take if that is less."""
    try:
        known = AutoConfig.from_pretrained(config.model, trust_remote_code=False).get_text_config()
    except Exception:  # whoever loads the model says what is wrong with it
        return config.max_length
    return min(config.max_length, getattr(known, "max_position_embeddings", None) or config.max_length)


def encode_together(session: Session[Config], snapshot: Snapshot, encoder: ChatEncoder, rules: Rules) -> Encoded:
    """The encoded splits; one process of each machine writes what all of them read.

    Raises:
        UsageError: in all processes if in any.
    """
    roots = cache_roots(session.folder)
    encoded, fault = None, None
    is_first_here = os.environ.get("LOCAL_RANK", "0") == "0"
    for turn in (True, False):
        if is_first_here == turn:
            try:
                encoded = encode_snapshot(snapshot, encoder, rules, roots=roots)
            except UsageError as error:
                fault = str(error)
        faults = [found for found in session.world.gather(fault) if found]
        if faults:
            raise UsageError(faults[0])
    assert encoded is not None
    return encoded


def course_of(config: CommonConfig, *, prompts: int, seed: int) -> Course:
    """The steps of one model over so many prompts (or documents)."""
    return make_course(
        prompts=prompts, batch_size=config.batch_size, epochs=config.epochs, max_steps=config.max_steps, seed=seed
    )
