"""A model too large for one device: every process keeps its part of every weight, gradient and moment (FSDP2).

A layer's weights are put together right before it is used and let go right after; its gradients are summed over the
processes and cut up again in the backward pass. So each forward and each backward is a meeting of all processes: all
of them must make the same number, in the same order (``even_out``), and none may make one alone.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from training.core.distributed import World, is_sharded, whole_tensor
from training.core.errors import UsageError
from training.core.language import LanguageModel
from training.core.modeling import RewardModel

Batch = TypeVar("Batch")


def shard_model(model: RewardModel | LanguageModel, world: World) -> None:
    """Spread the model over the processes, in place, and onto ``model.device``; all of them call it.

    Of a shared trunk one view is sharded, and with it all; its small score heads stay whole in every process.

    Before the optimizer is made, after everything that replaces modules or parameters (pad token, LoRA, gradient
    checkpointing). All processes must hold equal weights. Weights stay float32, and nothing is cast on the way: the
    arithmetic is autocast's. Gradients are summed, not averaged.

    Raises:
        UsageError: a single process, or an architecture whose decoder layers cannot be found.
    """
    from torch.distributed.device_mesh import init_device_mesh  # weight: one process never needs these
    from torch.distributed.fsdp import fully_shard

    if world.size == 1:
        raise UsageError(
            "--shard spreads a model over several processes, and this is one alone: start them by torchrun"
        )
    base = model.whole.base_model
    layers = decoder_layers(base, count=model.whole.config.get_text_config().num_hidden_layers)
    if layers is None:
        kind = model.whole.config.model_type
        raise UsageError(f"cannot shard a model of architecture {kind}: its decoder layers were not found")
    mesh = init_device_mesh(model.device.type, (world.size,))
    head = _head_of(model)
    tied = any(each is getattr(head, "weight", None) for each in base.parameters())
    # The head is called by itself (see ``RewardModel.score``), so it puts its own weight together.
    for module in (*layers, base, *(() if tied else (head,))):
        # Also at the roots: weights left whole after a forward without gradients would be out of date after a load.
        unit = fully_shard(module, mesh=mesh, reshard_after_forward=True)
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)  # gloo has no other reduction
    if tied:
        _tie_to_shards(head, model.whole.get_input_embeddings().weight)
    if left := [name for name, value in model.whole.named_parameters() if not is_sharded(value)]:
        raise UsageError(f"cannot shard this model: {left[0]} lies outside its decoder and its head")


def _head_of(model: RewardModel | LanguageModel) -> Any:
    """The head inside ``whole``: a view of a shared trunk may have another one beside it."""
    to_vocabulary = model.whole.get_output_embeddings()
    return model.head if to_vocabulary is None else to_vocabulary


def _tie_to_shards(head: Any, weight: nn.Parameter) -> None:
    """Give a head that shares the embedding's weight the sharded one, which it puts together whenever it is called.

    The weight belongs to the decoder, which has let go of it again when the head's turn comes. Training does not call
    the head but uses its weight (see ``language.whole_head``); this is for ``generate``.
    """
    head.weight = weight
    head.forward = lambda hidden: linear(hidden, head.weight.full_tensor())


def decoder_layers(base: nn.Module, *, count: int) -> nn.ModuleList | None:
    """The list of a decoder's ``count`` equal layers, wherever it hangs; None if there is no such list or more."""
    found = [
        module
        for module in base.modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and len({type(each) for each in module}) == 1
    ]
    # Lists inside the layers themselves (experts) are no candidates.
    inside = {id(part) for module in found for each in module for part in each.modules()}
    outermost = [module for module in found if id(module) not in inside]
    return outermost[0] if len(outermost) == 1 else None


@torch.no_grad()
def gather_model(model: RewardModel | LanguageModel, world: World) -> None:
    """Put every weight together again in the main process, on CPU, to be saved; all processes call it.

    The model is then as ``save_reward_model`` and ``save_policy`` want it, in the main process alone, and can no longer
    be run.
    """
    gathered: dict[int, nn.Parameter | None] = {}  # tied weights stay tied
    old = []  # kept: another parameter must not get the number of one that is gone
    for module in model.whole.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in gathered:
                whole = whole_tensor(parameter, keep=world.is_main)
                gathered[id(parameter)] = None if whole is None else nn.Parameter(whole, parameter.requires_grad)
                old.append(parameter)
            if (found := gathered[id(parameter)]) is not None:
                setattr(module, name, found)
    vars(_head_of(model)).pop("forward", None)


def even_out(batches: Sequence[Batch], spare: Batch, *, world: World, device: torch.device) -> list[tuple[Batch, bool]]:
    """As many micro-batches in every process as in the one with the most, each with whether it counts.

    ``spare`` is what a process with fewer forwards in place of the missing ones, the cheaper the better; its loss is
    ``empty_loss``. All processes call it; without sharding there is no need to.
    """
    missing = world.largest(len(batches), device=device) - len(batches)
    return [(batch, True) for batch in batches] + [(spare, False)] * missing


def empty_loss(scores: Tensor) -> Tensor:
    """A loss whose backward pass meets the others' and adds nothing."""
    return 0.0 * scores.sum()
