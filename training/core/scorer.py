"""A trained reward model put to use: its tokenizer, its zero, and the scale on which it was trained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig

from training.core.errors import UsageError
from training.core.losses import PairModel
from training.core.modeling import RewardModel, load_classifier, load_tokenizer, set_pad_token
from training.core.saving import MEAN_KEY, SCALE_KEY, THRESHOLDS_KEY, TIES_KEY
from training.core.thresholds import NAMES, Floats, outcome_probabilities
from training.core.tokens import ChatEncoder, settle_pad_token


@dataclass
class Scorer:
    """A reward model, ours or another's.

    ``mean`` is subtracted from what the model says, so that 0 is an ordinary response of its training data;
    ``scale`` × a difference of scores is the model's log-odds. Both come from the model's config, 0 and 1 where it says
    nothing. ``thresholds`` are of its model of ties, on the scale of the log-odds, empty where it has none; ``ties`` is
    the flag of that name.
    """

    model: RewardModel
    tokenizer: Any
    encoder: ChatEncoder
    pad_id: int
    mean: float
    scale: float
    thresholds: dict[str, float]
    ties: str


def outcome_model_of(members: Sequence[Mapping[str, float]], *, ties: str) -> Callable[[Floats], Floats] | None:
    """ln P of [the first wins, a tie, the second wins] given log-odds (M,): (M, 3); None where ties are no outcome.

    Args:
        members: the learned thresholds, of each member of an ensemble; their means are taken.
        ties: the flag --ties of the training.
    """
    kinds: dict[str, PairModel] = {"eta": "rao-kupper", "eta_1": "ordinal", "nu": "davidson", "delta_2": "davidson"}
    kind = next((kinds[name] for name in members[0] if name in kinds), None)
    if kind is None or ties not in ("rao-kupper", "davidson"):
        return None
    values = {name: fmean(each[name] for each in members) for name in members[0] if name in {*NAMES[kind], "delta_2"}}
    # Two responses under Plackett-Luce with ties are Davidson's pair.
    values = values | ({"nu": values["delta_2"]} if "delta_2" in values else {})
    return lambda difference: np.log(outcome_probabilities(kind, difference, values))


def load_scorer(name: str, *, device: torch.device, autocast_dtype: torch.dtype, show_thinking: bool) -> Scorer:
    """Load a sequence-classification model with one label to score with.

    Raises:
        UsageError: no such model, or one that is no reward model.
    """
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # the loader raises anything from OSError to KeyError
        raise UsageError(f"cannot load a model from {name}: {str(error).strip().splitlines()[0]}") from None
    kinds = getattr(config, "architectures", None) or []
    if not any("SequenceClassification" in kind for kind in kinds) or config.num_labels != 1:
        raise UsageError(f"{name} is no reward model: it is {', '.join(kinds) or 'unknown'} with {config.num_labels} "
                         "label(s), and a sequence classifier with one label is wanted")  # fmt: skip
    tokenizer = load_tokenizer(name)
    encoder = ChatEncoder(tokenizer, show_thinking=show_thinking)
    model = load_classifier(name, device=device, autocast_dtype=autocast_dtype)
    pad_id = settle_pad_token(encoder, embedding_rows=model.whole.get_input_embeddings().num_embeddings)
    set_pad_token(model, pad_id)
    model.whole.eval()
    return Scorer(
        model=model,
        tokenizer=tokenizer,
        encoder=encoder,
        pad_id=pad_id,
        mean=float(getattr(config, MEAN_KEY, 0.0)),
        scale=float(getattr(config, SCALE_KEY, 1.0)),
        thresholds=dict(getattr(config, THRESHOLDS_KEY, None) or {}),
        ties=str(getattr(config, TIES_KEY, "skip")),
    )


def member_folders(name: str) -> list[str]:
    """The models that a name stands for: itself, or those in the folder of one of our runs, all of an ensemble.

    Raises:
        UsageError: the folder is of a run that has not come to its end.
    """
    folder = Path(name)
    if not folder.is_dir() or (folder / "config.json").exists():
        return [name]
    numbered = [path for path in (folder / "ensemble").glob("*") if path.name.isdigit() and path.is_dir()]
    if numbered and (folder / "model").is_dir():
        return [str(path) for path in sorted(numbered, key=lambda path: int(path.name))]
    if not (folder / "model").is_dir() and (folder / "run.json").exists():
        raise UsageError(f"the run in {name} has not come to its end: it has no model yet")
    return [str(folder / "model")] if (folder / "model").is_dir() else [name]
