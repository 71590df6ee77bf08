"""Which LoRA adapter a forward goes through, chosen for that forward alone.

PEFT's own switches (``set_adapter``, ``disable_adapter``) also decide which parameters require gradients. Here nothing
but the choice changes, and it is taken back afterwards, so that several models may live in one frozen trunk.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

DEFAULT = "default"


def tuner_layers(whole: Any) -> list[Any]:
    """The layers of a model that PEFT has put adapters on."""
    from peft.tuners.tuners_utils import BaseTunerLayer  # weight: see ``modeling.add_lora``

    return [module for module in whole.modules() if isinstance(module, BaseTunerLayer)]


def is_of_adapter(name: str, adapter: str | None) -> bool:
    """Whether a parameter's name says that it belongs to this adapter; nothing belongs to none."""
    return adapter is not None and any(f".{matrix}.{adapter}." in name for matrix in ("lora_A", "lora_B"))


@contextmanager
def use_adapter(whole: Any, name: str | None) -> Iterator[None]:
    """Forwards inside go through the adapter of this name, or through none; may be nested."""
    layers = tuner_layers(whole)
    before = [(layer._active_adapter, layer._disable_adapters) for layer in layers]
    for layer in layers:
        layer._active_adapter, layer._disable_adapters = [name or DEFAULT], name is None
    try:
        yield
    finally:
        for layer, (active, disabled) in zip(layers, before, strict=True):
            layer._active_adapter, layer._disable_adapters = active, disabled


def recompute_alike(whole: Any) -> None:
    """Switch activation checkpointing on such that a layer computed again goes through the adapter it went through.

    The backward pass computes it again, when the forward's choice has long been taken back.
    """
    whole.activation_checkpointing_enable(
        activation_checkpointing_kwargs={"use_reentrant": False, "context_fn": lambda: _contexts(whole)}
    )


def _contexts(whole: Any) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """For the forward and for its repetition; called in the forward."""
    layers = tuner_layers(whole)
    if not layers:
        return nullcontext(), nullcontext()
    name = None if layers[0]._disable_adapters else layers[0].active_adapters[0]
    return nullcontext(), use_adapter(whole, name)
