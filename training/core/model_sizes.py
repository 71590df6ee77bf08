"""How large a model is, read from its folder without loading it. Standard library only.

``config.json`` says the shape, the head of each safetensors file the name and shape of every tensor: a few kilobytes of
reading, whatever the model weighs.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from training.core.memory import Load, Shape, shape_of

CONFIG_NAME = "config.json"
LARGEST_HEAD_BYTES = 100_000_000  # as the safetensors library has it
LANGUAGE_HEADS, SCORE_HEAD = ("lm_head.weight", "embed_out.weight"), "score.weight"


class SizeUnknown(Exception):
    """The folder does not say how large its model is; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class ModelSize:
    """A decoder counted in parameters.

    Attributes:
        vocabulary: rows of the embedding.
        context: the longest sequence in tokens, None where the config does not say.
        trunk: all but a head of its own.
        head: of a language model whose head is not its embedding; 0 for one that is tied.
        largest: the largest tensor of the trunk.
        linear: in and out of every linear layer of the trunk.
    """

    shape: Shape
    vocabulary: int
    context: int | None
    trunk: int
    head: int
    largest: int
    linear: tuple[tuple[int, int], ...] = field(repr=False)

    @property
    def parameters(self) -> int:
        """Of the language model."""
        return self.trunk + self.head

    def as_policy(self, *, lora_rank: int, recomputed: bool) -> Load:
        """The language model in training."""
        if lora_rank:
            return self._with_adapter(lora_rank, self.trunk + self.head, head=0, recomputed=recomputed)
        whole = self.trunk + self.head
        return Load(self.shape, whole, whole, max(self.largest, self.head), recomputed)

    def as_scores(self, *, lora_rank: int, recomputed: bool) -> Load:
        """The trunk with one scalar as its head, in training."""
        head = self.shape.hidden
        if lora_rank:
            # PEFT keeps the head as it was beside the one that is trained.
            return self._with_adapter(lora_rank, self.trunk + head, head=head, recomputed=recomputed)
        return Load(self.shape, self.trunk + head, self.trunk + head, self.largest, recomputed)

    def _with_adapter(self, rank: int, weights: int, *, head: int, recomputed: bool) -> Load:
        trained = rank * sum(sum(sides) for sides in self.linear) + head
        largest = rank * max((max(sides) for sides in self.linear), default=0)
        return Load(self.shape, weights + trained, trained, max(largest, head), recomputed)


def read_model_size(folder: Path) -> ModelSize:
    """The size of the model in a Hugging Face folder.

    Raises:
        SizeUnknown: no config of a decoder, or no safetensors files that can be read.
    """
    config = _object(folder / CONFIG_NAME)
    tensors = dict(_tensors(folder))
    if not tensors:
        raise SizeUnknown(f"{folder.name} has no safetensors files")
    return size_of(config, tensors)


def size_of(config: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]) -> ModelSize:
    """The size of a model with this ``config.json`` and these tensors.

    Raises:
        SizeUnknown: it is no config of a decoder.
    """
    nested = config.get("text_config")
    text: Mapping[str, Any] = nested if isinstance(nested, Mapping) else config
    known = SimpleNamespace(**_old_names(text))
    try:
        shape = shape_of(known)
        vocabulary = int(known.vocab_size)
    except (AttributeError, TypeError, ZeroDivisionError):
        raise SizeUnknown(f"its {CONFIG_NAME} is not that of a decoder") from None
    trunk = {name: sides for name, sides in tensors.items() if not name.endswith((*LANGUAGE_HEADS, SCORE_HEAD))}
    heads = [math.prod(sides) for name, sides in tensors.items() if name.endswith(LANGUAGE_HEADS)]
    # Files of a tied model may hold the embedding twice.
    tied = bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))
    context = getattr(known, "max_position_embeddings", None)
    return ModelSize(
        shape=shape,
        vocabulary=vocabulary,
        context=context if isinstance(context, int) else None,
        trunk=sum(math.prod(sides) for sides in trunk.values()),
        head=0 if tied else sum(heads),
        largest=max((math.prod(sides) for sides in trunk.values()), default=0),
        linear=tuple((sides[1], sides[0]) for name, sides in trunk.items() if _is_linear(name, sides)),
    )


def gated_decoder(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of a Llama of this config, by name: for a model that is still to be made."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head_size = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = (head_size * config[name] for name in ("num_attention_heads", "num_key_value_heads"))
    layer = {
        "self_attn.q_proj": (queries, hidden), "self_attn.k_proj": (keys, hidden), "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries), "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner), "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
    }  # fmt: skip
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for number in range(config["num_hidden_layers"]):
        found |= {f"model.layers.{number}.{name}.weight": sides for name, sides in layer.items()}
    return found | {"model.norm.weight": (hidden,)}


def _old_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """GPT-2's and GPT-NeoX's words for the same."""
    others = {"n_layer": "num_hidden_layers", "n_embd": "hidden_size", "n_head": "num_attention_heads",
              "n_inner": "intermediate_size", "n_positions": "max_position_embeddings"}  # fmt: skip
    return {ours: config[theirs] for theirs, ours in others.items() if theirs in config} | dict(config)


def _is_linear(name: str, sides: tuple[int, ...]) -> bool:
    return len(sides) == 2 and not any(word in name for word in ("embed", "wte", "wpe"))


def _tensors(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor in the folder's safetensors files."""
    for path in sorted(folder.glob("*.safetensors")):
        if path.name.startswith("adapter_"):
            continue
        for name, told in _head_of(path).items():
            if name != "__metadata__":
                yield name, _sides(path, told)


def _head_of(path: Path) -> dict[str, Any]:
    """The head of a safetensors file: eight bytes with its length, then JSON."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > LARGEST_HEAD_BYTES:
                raise SizeUnknown(f"{path.name} is no safetensors file")
            found = json.loads(file.read(length))
    except (OSError, ValueError) as error:
        raise SizeUnknown(f"{path.name} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise SizeUnknown(f"{path.name} is no safetensors file")
    return found


def _sides(path: Path, told: Any) -> tuple[int, ...]:
    shape = told.get("shape") if isinstance(told, dict) else None
    if not isinstance(shape, list) or not all(isinstance(side, int) and side >= 0 for side in shape):
        raise SizeUnknown(f"{path.name} is no safetensors file")
    return tuple(shape)


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SizeUnknown(f"{path.name} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise SizeUnknown(f"{path.name} is no JSON object")
    return found
