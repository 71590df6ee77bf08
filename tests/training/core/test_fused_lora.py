"""LoRA's product in one step against PEFT's own layer, which takes it apart, and against finite differences."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn

from training.core.adapters import use_adapter
from training.core.fused_lora import FusedLinear, LoraProducts, fuse, plain_adapter
from training.core.language import LanguageModel, add_language_lora, load_language_model


class Two(nn.Module):
    """Two linear layers, the second without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 7)
        self.second = nn.Linear(7, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


def lora(**settings: Any) -> Any:
    """PEFT's model, every matrix of LoRA filled, so that nothing of it is zero."""
    torch.manual_seed(0)
    model = get_peft_model(
        Two(), LoraConfig(r=2, lora_alpha=6, target_modules=["first", "second"], **settings), adapter_name="default"
    )
    for name, value in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(value)
    return model


def both(**settings: Any) -> tuple[Any, Any]:
    """The same model as PEFT has it, and fused."""
    peft = lora(**settings)
    fused = copy.deepcopy(peft)
    fuse(fused)
    assert {type(layer) for layer in fused.modules()} >= {FusedLinear}
    assert not any(type(layer) is FusedLinear for layer in peft.modules())
    return peft, fused


def learned(model: Any, x: Tensor) -> dict[str, Tensor]:
    """Output and all gradients of a forward and backward pass."""
    x = x.clone().requires_grad_()
    torch.manual_seed(1)  # dropout
    out = model(x)
    (out * torch.arange(1.0, 4.0)).sum().backward()
    found = {"out": out.detach(), "x": x.grad}
    return found | {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def assert_alike(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 5)], ids=str)
def test_output_and_gradients_are_those_of_peft(shape: tuple[int, ...]) -> None:
    peft, fused = both()
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(2))
    found = learned(fused, x)
    assert sum("lora_" in name for name in found) == 4
    assert not any("base_layer" in name for name in found)  # frozen
    assert_alike(learned(peft, x), found)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_gradients_are_those_of_finite_differences(bias: bool) -> None:
    draw = torch.Generator().manual_seed(3)

    def random(*shape: int, trained: bool = True) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64, requires_grad=trained)

    frozen = [random(4, 5, trained=False), random(4, trained=False) if bias else None]
    one = (random(2, 3, 5), [1.5], *frozen, random(2, 5), random(4, 2))
    assert torch.autograd.gradcheck(LoraProducts.apply, one)

    weights = [random(4, 5, trained=False), random(3, 5, trained=False), random(1, 5, trained=False)]
    biases = [random(4, trained=False) if bias else None, None, random(1, trained=False)]
    downs, ups = [random(rank, 5) for rank in (2, 1, 3)], [random(4, 2), random(3, 1), random(1, 3)]
    assert torch.autograd.gradcheck(
        LoraProducts.apply, (random(2, 3, 5), [1.5, 0.5, 2.0], *weights, *biases, *downs, *ups)
    )


def test_one_layer_takes_one_product() -> None:
    """The forward is really the fused one: PEFT's own sum of two tensors is not in the graph."""
    peft, fused = both()
    x = torch.randn(4, 5)
    assert "LoraProducts" in type(fused.base_model.model.second(torch.randn(4, 7)).grad_fn).__name__
    assert "LoraProducts" not in type(peft.base_model.model.first(x).grad_fn).__name__


def test_an_input_without_a_gradient_gets_none() -> None:
    _, fused = both()
    x = torch.randn(4, 5)
    fused(x).sum().backward()
    assert x.grad is None


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"lora_dropout": 0.5},
        {"lora_bias": True, "target_modules": None},
        {"use_rslora": True},
    ],
    ids=["dora", "dropout", "lora's bias", "rslora"],
)
def test_what_is_not_the_plain_formula_is_left_to_peft(settings: dict[str, Any]) -> None:
    if "target_modules" in settings:  # LoRA's bias needs a bias below it
        settings = {"lora_bias": True}
        torch.manual_seed(0)
        peft = get_peft_model(Two(), LoraConfig(r=2, target_modules=["first"], **settings))
        fused = copy.deepcopy(peft)
        fuse(fused)
    else:
        peft, fused = both(**settings)
    layer, x = fused.base_model.model.first, torch.randn(4, 5, generator=torch.Generator().manual_seed(4))
    assert (plain_adapter(layer, x) is None) == ("use_rslora" not in settings)  # rslora is another scaling alone
    assert_alike(learned(peft, x), learned(fused, x))


def test_no_adapter_is_the_frozen_layer_to_the_bit() -> None:
    peft, fused = both()
    x = torch.randn(4, 5)
    with use_adapter(fused, None), use_adapter(peft, None):
        assert torch.equal(fused(x), peft(x))
    base = fused.base_model.model.first.base_layer
    with use_adapter(fused, None):
        assert torch.equal(fused.base_model.model.first(x), base(x))


def test_each_adapter_has_its_own_matrices() -> None:
    peft, _ = both()
    peft.add_adapter("other", LoraConfig(r=3, lora_alpha=3, target_modules=["first", "second"]))
    for name, value in peft.named_parameters():
        if ".other." in name:
            nn.init.normal_(value)
    fused = copy.deepcopy(peft)
    fuse(fused)
    x = torch.randn(4, 5)
    outs = {}
    for name in ("default", "other"):
        with use_adapter(fused, name), use_adapter(peft, name):
            torch.testing.assert_close(fused(x), peft(x))
            outs[name] = fused(x)
    assert not torch.allclose(outs["default"], outs["other"])
    for layer in fused.modules():
        if isinstance(layer, Linear):
            layer._active_adapter = ["default", "other"]
            assert plain_adapter(layer, x) is None


def test_merged_and_autocast_are_left_to_peft() -> None:
    peft, fused = both()
    x = torch.randn(4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fused(x), peft(x))
    layer = fused.base_model.model.first
    wanted = layer(x)
    layer.merge()
    assert plain_adapter(layer, x) is None
    torch.testing.assert_close(layer(x), wanted)


def test_a_base_in_another_type_or_trained_is_left_to_peft() -> None:
    _, fused = both()
    layer, x = fused.base_model.model.first, torch.randn(4, 5)
    assert plain_adapter(layer, x) == "default"
    layer.base_layer.weight.requires_grad_()
    assert plain_adapter(layer, x) is None
    layer.base_layer.weight.requires_grad_(False)
    assert plain_adapter(layer, x.double()) is None


def test_the_models_of_the_recipes_are_fused(tiny_model: Any) -> None:
    base = load_language_model(str(tiny_model), device=torch.device("cpu"), autocast_dtype=torch.float32)
    model: LanguageModel = add_language_lora(base, rank=2, seed=0)
    layers = [layer for layer in model.whole.modules() if isinstance(layer, Linear)]
    assert layers and all(type(layer) is FusedLinear for layer in layers)


class Gated(nn.Module):
    """Attention's three layers of one input and a gated perceptron's two, named as transformers names them."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = nn.Linear(5, 6), nn.Linear(5, 4), nn.Linear(5, 4, bias=False)
        self.gate_proj, self.up_proj = nn.Linear(6, 8), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.q_proj(x) * torch.cat([self.k_proj(x), self.v_proj(x)], dim=-1)[..., 1:7]
        out: Tensor = torch.sigmoid(self.gate_proj(mixed)) * self.up_proj(mixed)
        return out[..., :3]


def both_gated(targets: str = "all-linear") -> tuple[Any, Any]:
    """PEFT's and the fused model of layers that go together; several adapters."""
    torch.manual_seed(0)
    peft = get_peft_model(Gated(), LoraConfig(r=2, lora_alpha=6, target_modules=targets), adapter_name="default")
    peft.add_adapter("other", LoraConfig(r=3, lora_alpha=3, target_modules=targets))
    for name, value in peft.named_parameters():
        if "lora_" in name:
            nn.init.normal_(value)
    peft.set_adapter("default")
    peft.double()  # so that the order of sums does not show
    fused = copy.deepcopy(peft)
    fuse(fused)
    return peft, fused


def groups(model: Any) -> list[int]:
    """How many layers each product takes in the graph of one forward."""
    found: list[int] = []
    seen: set[Any] = set()
    open_ = [model(torch.randn(4, 5, dtype=torch.float64)).grad_fn]
    while open_:
        node = open_.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if "LoraProducts" in type(node).__name__:
            found.append(len(node.scalings))
        open_ += [after for after, _ in node.next_functions]
    return sorted(found)


def test_layers_of_the_same_input_go_together() -> None:
    peft, fused = both_gated()
    assert groups(fused) == [2, 3] and groups(peft) == []
    x = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = learned(fused, x)
    assert sum("lora_" in name for name in found) == 10
    assert_alike(learned(peft, x), found)


def test_layers_of_which_some_have_no_adapter_go_as_they_can() -> None:
    peft, fused = both_gated(targets="(.*\\.)?(q_proj|v_proj|up_proj)")
    assert groups(fused) == [1, 2]
    x = torch.randn(4, 5, dtype=torch.float64)
    assert_alike(learned(peft, x), learned(fused, x))


def test_nothing_computed_for_another_input_adapter_or_kind_of_pass_is_given_out() -> None:
    """Of each set only the first layer is asked, so that the others' outputs are left over."""
    peft, fused = both_gated()
    ours, theirs = fused.base_model.model, peft.base_model.model

    def first_asked() -> Tensor:
        x = torch.randn(4, 5, dtype=torch.float64)
        ours.q_proj(x)
        return x

    def second_is_right(x: Tensor) -> None:
        torch.testing.assert_close(ours.k_proj(x), theirs.k_proj(x))

    first_asked()
    second_is_right(torch.randn(4, 5, dtype=torch.float64))
    second_is_right(first_asked().add_(1))
    x = first_asked()
    with use_adapter(fused, "other"), use_adapter(peft, "other"):
        second_is_right(x)
    x = first_asked()
    with use_adapter(fused, None), use_adapter(peft, None):
        second_is_right(x)
    with torch.no_grad():
        x = first_asked()
    assert ours.k_proj(x).requires_grad
    x = first_asked()
    with torch.no_grad():
        assert not ours.k_proj(x).requires_grad
    x = first_asked()
    ours.k_proj.lora_B["default"].weight.data.zero_()
    ours.q_proj(x)  # asked again: all are computed again
    torch.testing.assert_close(ours.k_proj(x), ours.k_proj.base_layer(x))


def test_a_copied_model_has_its_own_layers() -> None:
    _, fused = both_gated()
    other = copy.deepcopy(fused)
    for name, value in other.named_parameters():
        if "lora_B" in name:
            value.data.zero_()
    x = torch.randn(4, 5, dtype=torch.float64)
    with use_adapter(fused, None):
        plain = fused(x)
    torch.testing.assert_close(other(x), plain)
    assert not torch.allclose(fused(x), plain)


def test_layers_that_go_together_under_checkpointing() -> None:
    peft, fused = both_gated()
    x = torch.randn(4, 5, dtype=torch.float64)

    def checkpointed(model: Any) -> Any:
        def forward(x: Tensor) -> Tensor:
            out: Tensor = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)
            return out

        forward.named_parameters = model.named_parameters
        return forward

    assert_alike(learned(peft, x), learned(checkpointed(fused), x))
