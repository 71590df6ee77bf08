"""The reward model: a language model whose head is one linear layer to one scalar, in plain Hugging Face form."""

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from training.core.attention import let_attend_in_blocks
from training.core.errors import UsageError
from training.core.forwarding import autocast, last_hidden
from training.core.halving import first_line
from training.core.loading import load_config, load_weights, refuse_missing
from training.core.memory import Load, shape_of
from training.core.packing import PackedRows
from training.core.randomness import derive_seed, generator_for

HEAD = "score"


@dataclass
class RewardModel:
    """A sequence-classification model with one label, taken apart for pooling by explicit index.

    ``whole`` is the transformers model (LoRA layers live inside it), ``adapter`` the PEFT wrapper or None.
    """

    whole: Any
    adapter: Any | None
    device: torch.device
    autocast_dtype: torch.dtype

    @property
    def head(self) -> nn.Module:
        """The linear layer to the score."""
        return cast(nn.Module, getattr(self.whole, HEAD))

    def score(self, rows: PackedRows) -> Tensor:
        """Scores (N,) in float32, one per response in the order of ``rows``; the vocabulary is never touched."""
        hidden = last_hidden(self.whole, rows, device=self.device, autocast_dtype=self.autocast_dtype)
        pooled = hidden[rows.score_row, rows.score_column]
        scores: Tensor = self.head(pooled.float())
        return scores.squeeze(-1)

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Trained parameters by name, in a fixed order."""
        return ((name, value) for name, value in self.whole.named_parameters() if value.requires_grad)


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a model folder or hub id.

    Raises:
        UsageError: there is none.
    """
    if ("/" in name[:2] or name.count("/") > 1 or name.startswith("~")) and not Path(name).is_dir():
        raise UsageError(f"there is no folder {name} (a model is a folder, or owner/name on the hub)")
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # the loader raises anything from OSError to KeyError
        raise UsageError(f"cannot load a tokenizer from {name}: {first_line(error)}") from None


def load_reward_model(name: str, *, seed: int, device: torch.device, autocast_dtype: torch.dtype) -> RewardModel:
    """Load the trunk in float32 with every dropout at 0 and one score per sequence.

    The head is drawn with std 1/√(d + 1) from ``seed``; if ``name`` is a reward model already, its head is kept.

    Raises:
        UsageError: no such model, weights missing, or an architecture without a linear ``score`` head.
    """
    whole, missing = _load_classifier(name)
    if not has_linear_head(whole):
        raise UsageError(f"{whole.__class__.__name__} has no linear head called {HEAD!r} to train as a reward model")
    if fresh := f"{HEAD}.weight" in missing:
        _draw_head(getattr(whole, HEAD), seed=seed)
    refuse_missing(name, missing - ({f"{HEAD}.weight", f"{HEAD}.bias"} if fresh else set()))
    let_attend_in_blocks(whole)
    return RewardModel(whole=whole.to(device), adapter=None, device=device, autocast_dtype=autocast_dtype)


class OpaqueClassifier(RewardModel):
    """A classifier of another make, asked as it stands: it pools and scores by itself, one response a row."""

    def score(self, rows: PackedRows) -> Tensor:
        """Scores (N,) in float32, one per row."""
        with autocast(self.device, self.autocast_dtype):
            logits: Tensor = self.whole(input_ids=rows.input_ids, attention_mask=rows.attention_mask).logits
        return logits.float().squeeze(-1)


def load_classifier(name: str, *, device: torch.device, autocast_dtype: torch.dtype) -> RewardModel:
    """Load a trained sequence classifier of one label to score with, whatever its head is called.

    Raises:
        UsageError: no such model, or weights missing.
    """
    whole, missing = _load_classifier(name)
    refuse_missing(name, missing)
    kind = RewardModel if has_linear_head(whole) else OpaqueClassifier
    if kind is RewardModel:
        let_attend_in_blocks(whole)
    return kind(whole=whole.to(device), adapter=None, device=device, autocast_dtype=autocast_dtype)


def has_linear_head(whole: Any) -> bool:
    """Whether what scores is one linear layer to one number, of the name that decoders give it."""
    head = getattr(whole, HEAD, None)
    return isinstance(head, nn.Linear) and head.out_features == 1


def _load_classifier(name: str) -> tuple[Any, set[str]]:
    """The model in float32 without dropout, and the names of the weights that its files lack."""
    config = load_config(name, num_labels=1)
    # Pipelines then return the raw score, not its sigmoid.
    config.problem_type = "regression"
    return load_weights(AutoModelForSequenceClassification, name, config, dtype=torch.float32)


def _draw_head(head: nn.Linear, *, seed: int) -> None:
    draw = torch.randn(head.weight.shape, generator=generator_for(seed, "head"))
    with torch.no_grad():
        head.weight.copy_(draw / math.sqrt(head.in_features + 1))
        if head.bias is not None:
            head.bias.zero_()


class Trained(Protocol):
    """A reward model or a language model: what goes for any transformers model."""

    whole: Any

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Trained parameters by name, in a fixed order."""
        ...


def set_pad_token(model: Trained, pad_id: int) -> None:
    """Set the pad id everywhere that transformers looks for it; grows the embedding if the id is new."""
    embedding = model.whole.get_input_embeddings()
    if pad_id >= (before := embedding.num_embeddings):
        model.whole.resize_token_embeddings(pad_id + 1, mean_resizing=False)
        with torch.no_grad():
            # Nothing sees a pad; what it is must not depend on what was drawn before.
            for part in (model.whole.get_input_embeddings(), model.whole.get_output_embeddings()):
                if part is not None and len(part.weight) > before:
                    part.weight[before:] = 0
    # Composite configs keep the text model's apart; a model without generation has no generation config.
    configs = [
        model.whole.config,
        model.whole.config.get_text_config(),
        getattr(model.whole, "generation_config", None),
    ]
    for config in configs:
        if config is not None:
            config.pad_token_id = pad_id


def add_lora(model: RewardModel, *, rank: int, seed: int) -> RewardModel:
    """Freeze the trunk and put LoRA layers (α = 2 × rank) on every linear layer of it; the head is trained whole."""
    from peft import LoraConfig, TaskType, get_peft_model  # weight: peft costs a second that full training need not pay

    from training.core.fused_lora import fuse

    settings = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        modules_to_save=[HEAD],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "lora"))
        adapter = get_peft_model(model.whole, settings)
    fuse(model.whole)
    return RewardModel(model.whole, adapter, model.device, model.autocast_dtype)


def make_optimizer(
    trainable: Iterable[tuple[str, nn.Parameter]], *, learning_rate: float, weight_decay: float, epsilon: float = 1e-8
) -> tuple[torch.optim.Optimizer, dict[str, nn.Parameter]]:
    """AdamW over named parameters, weight decay on matrices alone; also the parameters in the optimizer's order."""
    named = sorted(trainable, key=lambda item: item[1].ndim < 2)
    matrices = [value for _, value in named if value.ndim >= 2]
    others = [value for _, value in named if value.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=learning_rate, betas=(0.9, 0.999), eps=epsilon, fused=True
    )
    return optimizer, dict(named)


def choose_device(wanted: str) -> torch.device:
    """The device of this process; ``auto`` takes CUDA if there is one, rank by rank.

    Raises:
        UsageError: CUDA was asked for and there is none.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UsageError("--device cuda: this machine has no CUDA device")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def choose_autocast(wanted: str, device: torch.device) -> torch.dtype:
    """The arithmetic of the forward pass; ``auto`` is float32 on CPU and bfloat16 on CUDA devices that have it."""
    if wanted == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if wanted == "bfloat16" else torch.float32


def load_of(model: Trained) -> Load:
    """What a model takes of memory, counted on itself."""
    trained = [value.numel() for _, value in model.trainable()]
    return Load(
        shape=shape_of(model.whole.config.get_text_config()),
        weights=sum(value.numel() for value in model.whole.parameters()),
        trained=sum(trained),
        largest=max(trained),
        recomputed=bool(model.whole.is_activation_checkpointing),
    )
