"""Several processes, one result: who am I, and sums over all of us. One process needs none of it.

Started by ``torchrun``, which sets RANK, LOCAL_RANK and WORLD_SIZE. Gradients are summed, with the batch's global
denominator already in the loss, so that the number of processes changes nothing but rounding.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Item = TypeVar("Item")


@dataclass(frozen=True)
class World:
    """The processes of this run, and which of them this is."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, items: list[Item]) -> list[Item]:
        """This process's part of a list that all processes hold alike."""
        return items[self.rank :: self.size]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up every parameter's gradient over all processes, in place; one without a gradient counts as zero."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def any(self, value: bool, *, device: torch.device) -> bool:
        """Whether it holds in any process; all get the same answer."""
        return bool(self.total(torch.tensor(int(value), device=device)).item())

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank, to all of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_main(self, value: Item) -> Item:
        """What the main process holds."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def leave(self) -> None:
        """Part from the others."""
        if self.size > 1:
            dist.destroy_process_group()


def join_world(device_type: str) -> World:
    """Join the processes that ``torchrun`` started, over nccl on CUDA and gloo elsewhere; alone without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
    return World(rank=dist.get_rank(), size=size)
