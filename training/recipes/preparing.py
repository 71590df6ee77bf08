"""What every recipe does at its start, whatever it trains."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import AutoConfig

from training.core.encoding import Encoded, Rules, cache_roots, encode_snapshot
from training.core.errors import UsageError
from training.core.files import model_fingerprint
from training.core.records import Snapshot
from training.core.schedule import Course, make_course
from training.core.scorer import member_folders
from training.core.tokens import ChatEncoder
from training.recipes.configs import CommonConfig, Config, ModelConfig
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


def usable_length(config: ModelConfig) -> int:
    """--max-length, or what the model can take if that is less."""
    return length_taken(config.model, at_most=config.max_length)


def length_taken(model: str, *, at_most: int) -> int:
    """Tokens that a model can take, ``at_most`` so many."""
    try:
        known = AutoConfig.from_pretrained(model, trust_remote_code=False).get_text_config()
    except Exception:  # whoever loads the model says what is wrong with it
        return at_most
    return min(at_most, getattr(known, "max_position_embeddings", None) or at_most)


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


def fingerprints_of(models: Mapping[str, str | None]) -> dict[str, list[str]]:
    """The fingerprint of each model that a flag names, of all members of an ensemble, by the flag.

    Raises:
        UsageError: what a flag names is neither a folder nor looks like owner/name on the hub.
    """
    found = {}
    for flag, name in models.items():
        if name is None:
            continue
        if not Path(name).is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
            raise UsageError(f"{flag}: there is no folder {name} (a model is a folder, or owner/name on the hub)")
        found[flag] = [model_fingerprint(folder) for folder in member_folders(name)]
    return found
