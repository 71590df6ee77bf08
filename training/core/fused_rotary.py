"""Rotary position embeddings in three passes over memory, forward and backward, where transformers' own take ten.

Transformers writes y = x · cos + rotate_half(x) · sin as separate steps: two products, a negation, a concatenation and
a sum, each of which reads and writes a tensor as large as the queries or keys, and autograd walks back through each,
filling up its slices with zeros.
"""

from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# What attention layers of transformers call, by this name among the globals of their module.
ROTATION = "apply_rotary_pos_emb"
PROBE = (2, 3, 4, 8)  # rows, heads, tokens, size


class Rotate(torch.autograd.Function):
    """y₁ = x₁ cos₁ − x₂ sin₁ and y₂ = x₂ cos₂ + x₁ sin₂ of the two halves of each head (Su et al. 2021, equation 34).

    Shapes: x (B, heads, T, D), cos and sin (B or 1, 1, T, D); y as x. With g = dy: dx₁ = g₁ cos₁ + g₂ sin₂ and
    dx₂ = g₂ cos₂ − g₁ sin₁.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        (x1, x2), (sin1, sin2) = x.chunk(2, dim=-1), sin.chunk(2, dim=-1)
        out: Tensor = x * cos
        y1, y2 = out.chunk(2, dim=-1)
        y1.addcmul_(x2, sin1, value=-1)
        y2.addcmul_(x1, sin2)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        (g1, g2), (sin1, sin2) = gradient.chunk(2, dim=-1), sin.chunk(2, dim=-1)
        of_x: Tensor = gradient * cos
        of_x1, of_x2 = of_x.chunk(2, dim=-1)
        of_x1.addcmul_(g2, sin2)
        of_x2.addcmul_(g1, sin1, value=-1)
        return of_x, None, None


def rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys (B, heads, T, D) turned by the angles (B or 1, T, D) of their positions."""
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    return Rotate.apply(query, cos, sin), Rotate.apply(key, cos, sin)  # type: ignore[no-untyped-call]


def fuse_rotary(whole: nn.Module) -> None:
    """Let the model's attention layers turn queries and keys as above; to be called before sharding.

    Which may, is asked of the function that each calls: some of that name turn neighbours, or a part of each head.
    """
    for module in whole.modules():
        if _turns_halves(type(module)):
            module.__class__ = _fused_class(type(module))


class _Fused:
    """Marks a class that stands before one of transformers' attention layers."""


_fused_classes: dict[type[nn.Module], type[nn.Module]] = {}


def _fused_class(attention: type[nn.Module]) -> type[nn.Module]:
    """One class for each that is fused, however often: its forward is the layer's own, which finds our rotation where
    it looks for transformers'."""
    if attention not in _fused_classes:
        forward = attention.forward
        plain = forward.__globals__[ROTATION]

        def chosen(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any) -> Any:
            if args or kwargs or not is_plain(query, key, cos, sin):
                return plain(query, key, cos, sin, *args, **kwargs)
            return rotate(query, key, cos, sin)

        ours = FunctionType(
            forward.__code__, forward.__globals__ | {ROTATION: chosen}, forward.__name__, forward.__defaults__,
            forward.__closure__,
        )  # fmt: skip
        ours.__kwdefaults__ = forward.__kwdefaults__
        _fused_classes[attention] = type(f"Fused{attention.__name__}", (_Fused, attention), {"forward": ours})
    return _fused_classes[attention]


def is_plain(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> bool:
    """Whether whole heads are turned in float32; rounding to half precision is left to transformers' own order."""
    if any(each.dtype != torch.float32 for each in (query, key, cos, sin)) or cos.requires_grad or sin.requires_grad:
        return False
    return query.ndim == key.ndim == 4 and cos.ndim == 3 and query.shape[-1] == key.shape[-1] == cos.shape[-1]


@torch.no_grad()
def _turns_halves(attention: type[nn.Module]) -> bool:
    """Whether a layer's forward calls the rotation above, found out on a few numbers."""
    forward = attention.forward
    if issubclass(attention, _Fused) or not isinstance(forward, FunctionType):
        return False
    plain = forward.__globals__.get(ROTATION)
    if plain is None or ROTATION not in forward.__code__.co_names:
        return False
    draw = torch.Generator().manual_seed(0)
    query, key = (torch.randn(PROBE, generator=draw) for _ in range(2))
    cos, sin = (torch.randn(PROBE[0], *PROBE[2:], generator=draw) for _ in range(2))
    try:
        found = plain(query, key, cos, sin)
    except Exception:  # of that name, but of other arguments
        return False
    return all(
        isinstance(theirs, Tensor) and theirs.shape == ours.shape and torch.allclose(theirs, ours, rtol=1e-5, atol=1e-6)
        for theirs, ours in zip(found, rotate(query, key, cos, sin), strict=False)
    )
