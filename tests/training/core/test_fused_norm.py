"""RMSNorm in few passes against transformers' own, against finite differences, and where it must not be used."""

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from training.core.fused_norm import RmsNorm, _Fused, fuse_norms


def norm_of(size: int = 6, epsilon: float = 0.1) -> LlamaRMSNorm:
    """With weights that are not all alike, and an ε that shows."""
    norm = LlamaRMSNorm(size, epsilon)
    nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(0))
    return norm


def learned(norm: nn.Module, x: Tensor) -> list[Tensor | None]:
    x = x.clone().requires_grad_()
    out = norm(x)
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    return [out.detach(), x.grad, norm.weight.grad]


@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 6)], ids=str)
@pytest.mark.parametrize("trained", [True, False], ids=["trained", "frozen"])
def test_output_and_gradients_are_those_of_transformers(shape: tuple[int, ...], trained: bool) -> None:
    own = norm_of()
    own.weight.requires_grad_(trained)
    fused = copy.deepcopy(own)
    fuse_norms(fused)
    assert isinstance(fused, _Fused) and not isinstance(own, _Fused)
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    found, expected = learned(fused, x), learned(own, x)
    assert (found[2] is None) == (not trained)
    for one, other in zip(found, expected, strict=True):
        assert one is other is None or torch.allclose(one, other, rtol=1e-5, atol=1e-6)  # type: ignore[arg-type]


def test_gradients_are_those_of_finite_differences() -> None:
    draw = torch.Generator().manual_seed(2)
    x, weight = (
        torch.randn(*shape, generator=draw, dtype=torch.float64, requires_grad=True) for shape in ((2, 3, 5), (5,))
    )
    assert torch.autograd.gradcheck(RmsNorm.apply, (x, weight, 0.1))


def test_a_row_of_zeros_is_no_trouble() -> None:
    fused = norm_of(epsilon=1e-5)
    fuse_norms(fused)
    out, gradient, _ = learned(fused, torch.zeros(2, 6))
    assert not out.any() and gradient is not None and torch.isfinite(gradient).all()


def test_a_norm_of_another_formula_is_left_alone() -> None:
    """Gemma's scales by 1 + w; one without a name of ε, and one in half precision, are not asked either."""
    gemma = GemmaRMSNorm(6)
    nn.init.normal_(gemma.weight)
    gemma.variance_epsilon = gemma.eps

    class ShiftedRMSNorm(LlamaRMSNorm):
        def forward(self, hidden_states: Tensor) -> Tensor:
            return super().forward(hidden_states) + 1

    whole = nn.ModuleList([gemma, ShiftedRMSNorm(6), LlamaRMSNorm(6).bfloat16(), nn.LayerNorm(6)])
    fuse_norms(whole)
    assert not any(isinstance(module, _Fused) for module in whole)


def test_half_precision_goes_through_transformers() -> None:
    own, x = norm_of(), torch.randn(2, 6, dtype=torch.bfloat16)
    fused = copy.deepcopy(own)
    fuse_norms(fused)
    assert torch.equal(fused(x), own(x))
    assert torch.equal(copy.deepcopy(own).bfloat16()(x), fused.bfloat16()(x))


def test_twice_is_once() -> None:
    norm = norm_of()
    fuse_norms(norm)
    once = type(norm)
    fuse_norms(norm)
    assert type(norm) is once
