"""How much memory training takes, told from sizes alone: the one formula of recipes, forms and API.

Standard library only. A recipe asks it about the models that it has loaded; the web, which never loads one, about what
``config.json`` and the heads of the safetensors files say (``training.core.model_sizes``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

FLOAT_BYTES = 4
# Of float32 logits that are in memory at once, see ``training.core.log_probs``.
CHUNK_BYTES = 64 * 2**20
# What a process on a CPU takes besides: Python, torch and transformers, measured with the tiny model.
LIBRARY_BYTES = int(0.4 * 2**30)


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder's layers: how many, and how wide; ``key_heads`` are those of keys and values."""

    layers: int
    hidden: int
    heads: int
    key_heads: int
    head_size: int
    inner: int


@dataclass(frozen=True, slots=True)
class Load:
    """One model in memory, counted in parameters.

    Attributes:
        weights: all that are held, adapters included.
        trained: those that are learned.
        largest: the largest learned tensor.
        recomputed: whether activations are computed again in the backward pass.
    """

    shape: Shape
    weights: int
    trained: int
    largest: int
    recomputed: bool = False


def shape_of(config: Any) -> Shape:
    """The shape that a transformers config says, or anything with its attributes.

    Raises:
        AttributeError: it is no config of a decoder.
    """
    heads = config.num_attention_heads
    return Shape(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=heads,
        key_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // heads,
        inner=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
    )


def kept_values(shape: Shape) -> int:
    """Values that a gated decoder layer (Llama's) keeps per token for its backward pass, without dropout.

    Twice the input, the normalised and the scaled output of a norm; queries, keys and values for every head, what
    attention gives, and that once more with the heads joined; and in the MLP the gate, the gate activated, the other
    half, and their product. Attention's probabilities are not kept: SDPA computes them again.
    """
    return 6 * shape.hidden + 5 * shape.heads * shape.head_size + 4 * shape.inner


def rest_bytes(load: Load) -> int:
    """What a model takes between two forwards: float32 weights, gradients, two Adam moments, and one more gradient of
    the largest parameter while it is added up."""
    return FLOAT_BYTES * (load.weights + 3 * load.trained + load.largest)


def peak_bytes(load: Load, *, tokens: int) -> int:
    """The peak of training memory with ``tokens`` forwarded at once: what the model takes at rest, and what the
    backward pass needs of each layer.

    What a process takes besides is not in it: on CPU some 0.4 GiB of libraries, and freed memory that the C library
    keeps for later where rows differ in length.
    """
    shape = load.shape
    kept = shape.layers * kept_values(shape)
    if load.recomputed:  # the input of every layer, and all of the one that is computed again
        kept = shape.layers * shape.hidden + kept_values(shape)
    return rest_bytes(load) + FLOAT_BYTES * tokens * kept


def peak_together(trained: Sequence[Load], *, frozen: int, tokens: int) -> int:
    """The peak in bytes where several models are trained in turn, beside ``frozen`` parameters that never are.

    The larger of them in training, the others at rest.
    """
    rest = [rest_bytes(load) for load in trained]
    peaks = [peak_bytes(load, tokens=tokens) + sum(rest) - own for load, own in zip(trained, rest, strict=True)]
    return max(peaks, default=0) + FLOAT_BYTES * frozen


def logit_bytes(vocabulary: int, *, tokens: int) -> int:
    """What a language model's head needs: some logits, their gradient and one more copy."""
    return 3 * min(CHUNK_BYTES, FLOAT_BYTES * vocabulary * tokens)


def without_weights(load: Load) -> Load:
    """A model on a trunk that is in memory already, as another's: what it learns is all that it adds."""
    return replace(load, weights=load.trained)
