"""LoRA's linear layer, y = xWᵀ + s(xAᵀ)Bᵀ, without the passes over memory that its separate steps cost.

PEFT computes the product with the frozen matrix, the product with B, the scaling and the sum one after the other. The
last two read and write tensors as large as the output, and the backward pass pays for them once more. Here the narrow
product is added into the wide one by the matrix multiplication itself (``addmm_``), forward and backward; what is kept
for the backward pass is the input and xAᵀ alone.

Importing this imports PEFT, which costs a second: only where LoRA is asked for.
"""

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class LoraProduct(torch.autograd.Function):
    """y = xWᵀ + b + s(xAᵀ)Bᵀ with W and b frozen (Hu et al. 2021, equation 3).

    Shapes: x (..., in), W (out, in), b (out) or None, A (rank, in), B (out, rank); y (..., out). All of one type.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scaling: float
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        low = flat @ down.T
        out = flat @ weight.T if bias is None else torch.addmm(bias, flat, weight.T)
        out.addmm_(low, up.T, alpha=scaling)
        ctx.save_for_backward(flat, weight, down, up, low)
        ctx.scaling, ctx.shape = scaling, x.shape
        return out.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, down, up, low = ctx.saved_tensors
        outer = gradient.reshape(-1, gradient.shape[-1])
        inner = (outer @ up).mul_(ctx.scaling)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (outer @ weight).addmm_(inner, down).view(ctx.shape)
        # Transposed: with the narrow factor on the right the product takes less time.
        of_down = (flat.T @ inner).T if ctx.needs_input_grad[3] else None
        of_up = (outer.T @ low).mul_(ctx.scaling) if ctx.needs_input_grad[4] else None
        return of_x, None, None, of_down, of_up, None


class FusedLinear(Linear):  # type: ignore[misc]
    """PEFT's LoRA layer; a forward that its plain formula describes takes one step."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        name = None if args or kwargs else plain_adapter(self, x)
        if name is None:
            return super().forward(x, *args, **kwargs)  # type: ignore[no-any-return]
        base = self.base_layer
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        out: Tensor = LoraProduct.apply(  # type: ignore[no-untyped-call]
            x, base.weight, base.bias, down, up, self.scaling[name]
        )
        return out


def fuse(whole: nn.Module) -> None:
    """Let the model's LoRA layers on plain linear layers multiply as above; to be called before sharding."""
    for module in whole.modules():
        if type(module) is Linear and type(module.base_layer) is nn.Linear:
            module.__class__ = FusedLinear


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
