"""LoRA's linear layer, y = xWᵀ + s(xAᵀ)Bᵀ, without the passes over memory that its separate steps cost.

PEFT computes the product with the frozen matrix, the product with B, the scaling and the sum one after the other. The
last two read and write tensors as large as the output, and the backward pass pays for them once more. Here the narrow
product is added into the wide one by the matrix multiplication itself (``addmm_``), forward and backward; what is kept
for the backward pass is the input and xAᵀ alone. Layers of the same input (queries, keys and values; the two halves of
a gated perceptron) go together: their A are one matrix then, and the input is read and its gradient written once.

Importing this imports PEFT, which costs a second: only where LoRA is asked for.
"""

from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

#: Layers of one module that transformers call with the same tensor.
SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class LoraProducts(torch.autograd.Function):
    """y = xWᵀ + b + s(xAᵀ)Bᵀ with W and b frozen (Hu et al. 2021, equation 3), of one x for several W.

    Arguments: x, the scalings s, then all W, all b (each may be None), all A and all B. One y for each W.

    Shapes: x (..., in), W (out, in), b (out), A (rank, in), B (out, rank); y (..., out). All of one type.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scalings: Sequence[float], *matrices: Tensor | None) -> tuple[Tensor, ...]:
        weights, biases, downs, ups = in_fours(matrices)
        flat = x.reshape(-1, x.shape[-1])
        low = flat @ stacked(downs).T
        ranks = [len(down) for down in downs]
        outs = []
        for weight, bias, up, scaling, part in zip(
            weights, biases, ups, scalings, low.split_with_sizes(ranks, 1), strict=True
        ):
            out = flat @ weight.T if bias is None else torch.addmm(bias, flat, weight.T)
            outs.append(out.addmm_(part, up.T, alpha=scaling).view(*x.shape[:-1], len(weight)))
        ctx.save_for_backward(flat, low, *weights, *downs, *ups)
        ctx.scalings, ctx.shape = scalings, x.shape
        return tuple(outs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        flat, low, *matrices = ctx.saved_tensors
        count = len(ctx.scalings)
        weights, downs, ups = matrices[:count], matrices[count : 2 * count], matrices[2 * count :]
        ranks = [len(down) for down in downs]
        outers = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
        inner = torch.empty_like(low)
        for part, outer, up, scaling in zip(inner.split_with_sizes(ranks, 1), outers, ups, ctx.scalings, strict=True):
            torch.mm(outer, up, out=part).mul_(scaling)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = torch.mm(inner, stacked(downs))
            for outer, weight in zip(outers, weights, strict=True):
                of_x.addmm_(outer, weight)
            of_x = of_x.view(ctx.shape)
        # Transposed: with the narrow factor on the right the product takes less time.
        of_downs = (flat.T @ inner).T.split_with_sizes(ranks)
        of_ups = [
            (outer.T @ part).mul_(scaling)
            for outer, part, scaling in zip(outers, low.split_with_sizes(ranks, 1), ctx.scalings, strict=True)
        ]
        return of_x, None, *[None] * 2 * count, *of_downs, *of_ups


def in_fours(matrices: Sequence[Any]) -> list[Sequence[Any]]:
    """Four equal parts, in order."""
    count = len(matrices) // 4
    return [matrices[start : start + count] for start in range(0, 4 * count, count)]


def stacked(matrices: Sequence[Tensor]) -> Tensor:
    """Their rows, one under the other."""
    return matrices[0] if len(matrices) == 1 else torch.cat(tuple(matrices))


class FusedLinear(Linear):  # type: ignore[misc]
    """PEFT's LoRA layer; a forward that its plain formula describes takes one step, together with its siblings'."""

    siblings: "Siblings"

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        name = None if args or kwargs else plain_adapter(self, x)
        if name is None:
            return super().forward(x, *args, **kwargs)  # type: ignore[no-any-return]
        return self.siblings.output(self, x, name)


class Siblings:
    """Layers that are called with the same tensor, one after the other: the first call computes what all will give.

    What was computed is kept until each has been asked for it, or one is asked for something else.
    """

    def __init__(self, layers: Sequence[FusedLinear]) -> None:
        self._layers = list(layers)
        self._of: tuple[Any, ...] | None = None
        self._ready: dict[int, Tensor] = {}

    def output(self, layer: FusedLinear, x: Tensor, name: str) -> Tensor:
        """What ``layer`` makes of ``x`` with the adapter of this name, of which `plain_adapter` is true."""
        place = self._layers.index(layer)
        if place not in self._ready or not self._is_of(x, name):
            self._forget()
            together = self._layers if self._all_plain(x, name) else [layer]
            outs = products(together, x, name)
            if len(together) == 1:
                return outs[0]
            self._of = (x, *state_of(x), name)
            self._ready = dict(enumerate(outs))
        out = self._ready.pop(place)
        if not self._ready:
            self._forget()
        return out

    def _is_of(self, x: Tensor, name: str) -> bool:
        return self._of is not None and self._of[0] is x and self._of[1:] == (*state_of(x), name)

    def _all_plain(self, x: Tensor, name: str) -> bool:
        # A tensor of inference mode does not say whether it was changed.
        return not x.is_inference() and all(plain_adapter(layer, x) == name for layer in self._layers)

    def _forget(self) -> None:
        self._of, self._ready = None, {}


def state_of(x: Tensor) -> tuple[int, bool]:
    """What has to be the same for two products of one tensor to be the same."""
    return x._version, torch.is_grad_enabled()


def products(layers: Sequence[FusedLinear], x: Tensor, name: str) -> tuple[Tensor, ...]:
    """The outputs of layers with the same input, all plain with the adapter of this name."""
    bases = [layer.base_layer for layer in layers]
    found: tuple[Tensor, ...] = LoraProducts.apply(  # type: ignore[no-untyped-call]
        x,
        [layer.scaling[name] for layer in layers],
        *(base.weight for base in bases),
        *(base.bias for base in bases),
        *(layer.lora_A[name].weight for layer in layers),
        *(layer.lora_B[name].weight for layer in layers),
    )
    return found


def fuse(whole: nn.Module) -> None:
    """Let the model's LoRA layers on plain linear layers multiply as above; to be called before sharding."""
    for module in whole.modules():
        if type(module) is Linear and type(module.base_layer) is nn.Linear:
            module.__class__ = FusedLinear
            join([module])
    for module in whole.modules():
        for names in SAME_INPUT:
            join([child for name in names if type(child := getattr(module, name, None)) is FusedLinear])


def join(layers: Sequence[Any]) -> None:
    """Let these layers, if their inputs are as wide, be computed together."""
    if len({layer.in_features for layer in layers}) == 1:
        siblings = Siblings(layers)
        for layer in layers:
            layer.siblings = siblings


def plain_adapter(layer: Any, x: Tensor) -> str | None:
    """The one adapter that this forward goes through by the plain formula; None where anything else is asked for.

    That is: none or several adapters, a merged one, dropout, a variant (DoRA), a bias of LoRA's own, autocast, mixed
    types, a base that is trained too.
    """
    if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
        return None
    name = str(layer.active_adapters[0])
    if name not in layer.lora_A or name in layer.lora_variant or layer.lora_B[name].bias is not None:
        return None
    if not isinstance(layer.lora_dropout[name], nn.Identity) or torch.is_autocast_enabled(x.device.type):
        return None
    weight, down, up = layer.base_layer.weight, layer.lora_A[name].weight, layer.lora_B[name].weight
    if weight.requires_grad or not x.dtype == weight.dtype == down.dtype == up.dtype:
        return None
    return name
