"""The end of a reward model's training: scores brought to one scale, and an ordinary Hugging Face folder."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from training.core.files import published_folder, write_json
from training.core.modeling import RewardModel

MEAN_KEY, SCALE_KEY = "plackett_score_mean", "plackett_score_scale"
THRESHOLDS_KEY, TIES_KEY = "plackett_thresholds", "plackett_ties"


@dataclass(frozen=True)
class ScoreScale:
    """Mean and standard deviation of the train responses' scores, as trained: (score − mean) / std has 0 and 1."""

    mean: float
    std: float


def scale_of(scores: Sequence[float]) -> ScoreScale:
    """Of all scores given; a model that scores everything alike is left as it is."""
    std = statistics.pstdev(scores) if scores else 0.0
    return ScoreScale(statistics.fmean(scores) if scores else 0.0, std if std > 0 and math.isfinite(std) else 1.0)


def fold_scale(model: RewardModel, scale: ScoreScale, *, thresholds: dict[str, float], ties: str) -> None:
    """Divide the head by the standard deviation and write down what a loader needs (Ziegler et al. 2019, section 2.1).

    From then on plain transformers give scores of variance 1 over the train responses; their mean (which our loaders
    subtract) stands in the config as ``plackett_score_mean``. ``plackett_score_scale`` × a difference of scores is what
    the model was trained to, whose logistic function is its probability; ``plackett_thresholds`` are on that scale, and
    ``plackett_ties`` is the flag --ties.
    """
    with torch.no_grad():
        for weight in head_weights(model):
            weight.div_(scale.std)
    config = model.whole.config
    setattr(config, MEAN_KEY, scale.mean / scale.std)
    setattr(config, SCALE_KEY, scale.std)
    setattr(config, THRESHOLDS_KEY, thresholds)
    setattr(config, TIES_KEY, ties)


def head_weights(model: RewardModel) -> list[nn.Parameter]:
    """The trained head's parameters: of the linear layer itself, or of the copy that PEFT trains in its place."""
    copies = getattr(model.head, "modules_to_save", None)
    layer = model.head if copies is None else cast(nn.Module, copies["default"])
    return list(layer.parameters())


def save_reward_model(
    model: RewardModel,
    tokenizer: Any,
    target: Path,
    *,
    card: str,
    adapter: Path | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write the whole, merged model to ``target`` and, with LoRA, adapter and head to ``adapter``, each by rename.

    The model in memory is merged by this and is not to be trained further. ``extra`` are JSON values by file name.
    """
    # Models with absolute positions score a left-padded batch differently unless they are given position ids.
    tokenizer.padding_side = "right"
    if model.adapter is not None and adapter is not None:
        with published_folder(adapter) as scratch:
            model.adapter.save_pretrained(scratch, safe_serialization=True)
            tokenizer.save_pretrained(scratch)
    whole = model.adapter.merge_and_unload() if model.adapter is not None else model.whole
    with published_folder(target) as scratch:
        whole.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        (scratch / "README.md").write_text(card, encoding="utf-8")
        for name, value in (extra or {}).items():
            write_json(scratch / name, value)
