"""The language model: any decoder of transformers, taken apart so that its head is applied only where it is needed.

``hidden`` forwards packed rows up to the last hidden states; ``logits`` applies the head to some of them. Between the
two lies the choice of places (``token_places``), without which the logits of a vocabulary of 50,000 would be most of
the memory of training.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import AutoModelForCausalLM

from training.core.adapters import DEFAULT, is_of_adapter, use_adapter
from training.core.attention import let_attend_in_blocks
from training.core.distributed import is_sharded, like_shards
from training.core.errors import UsageError
from training.core.forwarding import autocast, last_hidden
from training.core.loading import load_config, load_weights, refuse_missing
from training.core.packing import PackedRows
from training.core.randomness import derive_seed

PROBE_TOKENS = 4


@dataclass(frozen=True)
class LogitShape:
    """What a model makes of its head's output z: ``factor`` · z, and of that c · tanh(· / c) if it has a ``cap`` c."""

    factor: float = 1.0
    cap: float | None = None

    def apply(self, logits: Tensor) -> Tensor:
        """Of logits of any shape."""
        if self.factor != 1.0:
            logits = logits * self.factor
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


@dataclass
class LanguageModel:
    """A causal language model, as ``modeling.RewardModel`` is one for scores.

    ``whole`` is the transformers model (LoRA layers live inside it), ``adapter`` the PEFT wrapper or None;
    ``adapter_name`` the adapter that forwards go through, None for none.
    """

    whole: Any
    adapter: Any | None
    device: torch.device
    autocast_dtype: torch.dtype
    shape: LogitShape = LogitShape()
    adapter_name: str | None = None

    @property
    def head(self) -> nn.Linear:
        """The linear layer to the vocabulary; its weight may be the embedding's."""
        head: nn.Linear = self.whole.get_output_embeddings()
        return head

    def hidden(self, rows: PackedRows) -> Tensor:
        """The last hidden states (B, T, d), final norm included."""
        with self.forwarding():
            return last_hidden(self.whole, rows, device=self.device, autocast_dtype=self.autocast_dtype)

    def logits(self, hidden: Tensor, head: "WholeHead") -> Tensor:
        """The model's own logits (M, V) in float32, of hidden states (M, d)."""
        with autocast(self.device, self.autocast_dtype):
            return self.shape.apply(linear(hidden, head.weight, head.bias).float())

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Trained parameters by name, in a fixed order; with adapters, those of this model's alone."""
        return (
            (name, value)
            for name, value in self.whole.named_parameters()
            if value.requires_grad and (self.adapter is None or is_of_adapter(name, self.adapter_name))
        )

    def forwarding(self) -> AbstractContextManager[None]:
        """Inside, the whole model (as in ``generate``) goes through this model's adapter, or through none."""
        return nullcontext() if self.adapter is None else use_adapter(self.whole, self.adapter_name)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, this is the model that it was before training: the base without adapter. No weight is touched.

        Raises:
            ValueError: all weights are trained, so that the model before training is gone.
        """
        if self.adapter is None:
            raise ValueError("a model without adapter has no reference inside it: load it a second time")
        before, self.adapter_name = self.adapter_name, None
        try:
            yield
        finally:
            self.adapter_name = before


@dataclass(frozen=True)
class WholeHead:
    """The head's parameters as one forward and backward uses them: of a sharded model, put together.

    ``weight`` (V, d), ``bias`` (V,) or None: the parameters themselves, or leaves of their own where the parameters
    are sharded. ``parameters`` are what gradients go to in the end.
    """

    weight: Tensor
    bias: Tensor | None
    parameters: tuple[Tensor, Tensor | None]

    def finish_backward(self) -> None:
        """Bring the gradients of leaves to the sharded parameters, summed over the processes, which all call it."""
        for leaf, parameter in zip((self.weight, self.bias), self.parameters, strict=True):
            if parameter is None or leaf is None or leaf is parameter or not parameter.requires_grad:
                continue
            gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            dist.all_reduce(gradient)
            part = like_shards(gradient, parameter)
            parameter.grad = part if parameter.grad is None else parameter.grad + part


def whole_head(model: LanguageModel) -> WholeHead:
    """The head of a model, ready to be applied. Of a sharded one all processes call it: one gathering per call."""
    parameters = (model.head.weight, model.head.bias)
    return WholeHead(_leaf(parameters[0]), None if parameters[1] is None else _leaf(parameters[1]), parameters)


def _leaf(parameter: Tensor) -> Tensor:
    if not is_sharded(parameter):
        return parameter
    whole: Tensor = parameter.detach().full_tensor()  # type: ignore[attr-defined]
    return whole.requires_grad_(parameter.requires_grad)


def load_language_model(
    name: str, *, device: torch.device, autocast_dtype: torch.dtype, weights_dtype: torch.dtype = torch.float32
) -> LanguageModel:
    """Load a causal language model with every dropout at 0.

    Args:
        weights_dtype: float32 for what is trained; a frozen model may be bfloat16, and computes in it then.

    Raises:
        UsageError: no such model, a reward model, weights missing, or logits that are more than a linear layer of the
            last hidden states, scaled or capped.
    """
    config = load_language_config(name)
    whole, missing = load_weights(AutoModelForCausalLM, name, config, dtype=weights_dtype)
    refuse_missing(name, missing)
    let_attend_in_blocks(whole)
    arithmetic = autocast_dtype if weights_dtype == torch.float32 else weights_dtype
    model = LanguageModel(whole.to(device), None, device, arithmetic, logit_shape(whole.config))
    if not isinstance(model.head, nn.Linear) or not computes_own_logits(model):
        raise UsageError(f"{whole.__class__.__name__} makes its logits in a way that is not known here")
    return model


def load_language_config(name: str) -> Any:
    """The config of a causal language model.

    Raises:
        UsageError: there is none, or it is a reward model's.
    """
    config = load_config(name)
    if any(kind.endswith("ForSequenceClassification") for kind in getattr(config, "architectures", None) or ()):
        raise UsageError(f"{name} is a reward model (a sequence classifier), and a language model is needed here")
    return config


def logit_shape(config: Any) -> LogitShape:
    """What a config says about its logits: Granite divides them, Cohere multiplies them, Gemma 2 caps them."""
    text = config.get_text_config()
    factor = (getattr(text, "logit_scale", None) or 1.0) / (getattr(text, "logits_scaling", None) or 1.0)
    return LogitShape(factor=float(factor), cap=getattr(text, "final_logit_softcapping", None))


@torch.no_grad()
def computes_own_logits(model: LanguageModel) -> bool:
    """Whether ``logits`` of ``hidden`` are what the model itself computes, on a few tokens."""
    count = min(PROBE_TOKENS, model.whole.config.get_text_config().vocab_size)
    ids = torch.arange(count, device=model.device)[None]
    rows = PackedRows(ids, ids.clone(), torch.ones_like(ids), ids[0], ids[0])
    with autocast(model.device, model.autocast_dtype):
        own = model.whole(
            input_ids=ids, attention_mask=rows.attention_mask, position_ids=rows.position_ids, use_cache=False
        ).logits[0].float()  # fmt: skip
    ours = model.logits(model.hidden(rows)[0], whole_head(model))
    # Half precision rounds, and does so before or after the scaling.
    tolerance = 1e-4 if model.autocast_dtype == torch.float32 else 2e-2
    return own.shape == ours.shape and bool(((own - ours).abs() <= tolerance * own.abs().max().clamp(min=1e-6)).all())


def add_language_lora(model: LanguageModel, *, rank: int, seed: int) -> LanguageModel:
    """Freeze the model and put LoRA layers (α = 2 × rank) on every linear layer but the head."""
    from peft import LoraConfig, TaskType, get_peft_model  # weight: see ``modeling.add_lora``

    from training.core.fused_lora import fuse

    settings = LoraConfig(
        task_type=TaskType.CAUSAL_LM, r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "lora"))
        adapter = get_peft_model(model.whole, settings)
    fuse(model.whole)
    return LanguageModel(model.whole, adapter, model.device, model.autocast_dtype, model.shape, DEFAULT)
