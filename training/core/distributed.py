"""Several processes, one result: who am I, and sums over all of us. One process needs none of it.

Started by ``torchrun``, which sets RANK, LOCAL_RANK and WORLD_SIZE. Gradients are summed, with the batch's global
denominator already in the loss, so that the number of processes changes nothing but rounding.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from training.core.errors import TrainingError, UsageError

Item = TypeVar("Item")

# A process waits this long for the others, then fails: they may write a checkpoint or a report meanwhile.
COLLECTIVE_SECONDS = 1800.0
# Gradients smaller than this (512 KiB of float32) are added up together: of one call for each, most would be waiting.
# Larger ones would lose more by being copied.
BUCKET_VALUES = 1 << 17
FAILURE = "failure"


@dataclass(frozen=True)
class World:
    """The processes of this run, and which of them this is.

    ``store`` is where they found one another; through it one that fails can still tell the others why.
    """

    rank: int = 0
    size: int = 1
    store: Any = field(default=None, repr=False, compare=False)

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, items: list[Item]) -> list[Item]:
        """This process's part of a list that all processes hold alike."""
        return items[self.rank :: self.size]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up every parameter's gradient over all processes, in place; one without a gradient counts as zero.

        Sharded parameters are left alone: theirs were added up in the backward pass.
        """
        if self.size == 1:
            return
        gradients = []
        for parameter in parameters:
            if not is_sharded(parameter):
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            if len(bucket) == 1:
                dist.all_reduce(bucket[0])
                continue
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat)
            summed = torch.split(flat, [gradient.numel() for gradient in bucket])
            for gradient, values in zip(bucket, summed, strict=True):
                gradient.copy_(values.view_as(gradient))

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def any(self, value: bool, *, device: torch.device) -> bool:
        """Whether it holds in any process; all get the same answer."""
        return bool(self.total(torch.tensor(int(value), device=device)).item())

    def largest(self, value: int, *, device: torch.device) -> int:
        """The largest of all processes' numbers, to all of them."""
        if self.size == 1:
            return value
        box = torch.tensor(value, device=device)
        dist.all_reduce(box, op=dist.ReduceOp.MAX)
        return int(box.item())

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

    def together(self, work: Callable[[], Item]) -> Item:
        """What ``work`` gives in this process; if it fails in any, it has failed in all, and none waits in vain.

        Raises:
            UsageError, TrainingError: as raised in the first process that failed.
        """
        result, fault = [], None
        try:
            result = [work()]
        except (UsageError, TrainingError) as error:
            fault = error
        for found in self.gather(fault):
            if found is not None:
                raise found
        return result[0]

    def announce_failure(self, reason: str) -> None:
        """Leave word for processes that wait for this one in vain; they read it when their collective breaks."""
        if self.store is not None:
            with suppress(RuntimeError):  # the store may be gone with the process that kept it
                self.store.set(FAILURE, f"process {self.rank}: {reason}")

    def announced_failure(self) -> str | None:
        """What a process that failed left word of; None where there is none or it can no longer be read."""
        try:
            if self.store is not None and self.store.check([FAILURE]):
                return str(self.store.get(FAILURE).decode())
        except RuntimeError:  # the store went down with the process that kept it
            pass
        return None

    def leave(self) -> None:
        """Part from the others."""
        if self.size > 1:
            dist.destroy_process_group()


def join_world(device_type: str, *, timeout_seconds: float = COLLECTIVE_SECONDS) -> World:
    """Join the processes that ``torchrun`` started, over nccl on CUDA and gloo elsewhere; alone without it.

    Args:
        timeout_seconds: how long a collective may wait for another process before it fails.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World()
    timeout = timedelta(seconds=timeout_seconds)
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    backend = "nccl" if device_type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    return World(rank, size, store)


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is spread over the processes (a ``DTensor``, told by what it can do: its class is slow to load,
    and one process needs it never)."""
    return hasattr(tensor, "full_tensor")


def whole_tensor(tensor: Tensor, *, keep: bool = True) -> Tensor | None:
    """A tensor put together from all processes' shards, on CPU; one that is not sharded is itself.

    Every process has to call it, for the same tensors in the same order; those that do not ``keep`` it get None.
    """
    if not is_sharded(tensor):
        return tensor.detach() if keep else None
    whole = tensor.detach().full_tensor()  # type: ignore[attr-defined]
    return whole.cpu() if keep else None


def like_shards(whole: Tensor, pattern: Tensor) -> Tensor:
    """A whole tensor, held alike by all processes, spread as ``pattern`` is; itself where that is not sharded."""
    if not is_sharded(pattern):
        return whole
    from torch.distributed.tensor import distribute_tensor  # weight: see ``is_sharded``

    # Nobody sends anything: each takes its own part of what it has read itself.
    return distribute_tensor(whole, pattern.device_mesh, pattern.placements, src_data_rank=None)  # type: ignore[attr-defined]


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale the gradients down to a total L2 norm of ``max_norm``; the norm before, the same in all processes.

    Gradients of parameters that are not sharded must have been summed. As ``torch.nn.utils.clip_grad_norm_``, which
    takes sharded parameters, but not beside others.
    """
    found = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [parameter.grad for parameter in found if parameter.grad is not None]
    sharded: list[Any] = [gradient for gradient in gradients if is_sharded(gradient)]
    if not sharded:
        return float(nn.utils.clip_grad_norm_(found, max_norm))
    plain = [gradient for gradient in gradients if not is_sharded(gradient)]
    of_sharded: Any = nn.utils.get_total_norm(sharded)
    norm = torch.linalg.vector_norm(torch.stack([of_sharded.full_tensor(), nn.utils.get_total_norm(plain)]))
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for gradient in (*plain, *(each.to_local() for each in sharded)):
        gradient.mul_(scale)
    return float(norm)


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors in order, together as long as they hold no more than ``BUCKET_VALUES``."""
    bucket: list[Tensor] = []
    filled = 0
    for tensor in tensors:
        if bucket and filled + tensor.numel() > BUCKET_VALUES:
            yield bucket
            bucket, filled = [], 0
        bucket.append(tensor)
        filled += tensor.numel()
    if bucket:
        yield bucket
