"""Out of memory in one process: all halve their micro-batches together and take the same step again.

What a step computes does not depend on how its prompts are cut into micro-batches, so it may be dropped at any point
and begun anew with smaller ones; only all processes must do so alike, or they would wait for one another for ever.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from training.core.distributed import World
from training.core.errors import TrainingError

Result = TypeVar("Result")
Part = TypeVar("Part")

ADVICE = "a smaller --max-length, a --lora-rank or --gradient-checkpointing takes less memory"


@dataclass
class MicroBatchBudget:
    """How many tokens are forwarded at once; halved, never raised again, when memory does not suffice.

    Attributes:
        tokens: the budget now, the same in all processes.
        floor: the smallest that is tried: below it micro-batches would get no smaller.
        sharded: whether forward and backward are themselves meetings of all processes.
        say: where a halving is told.
    """

    tokens: int
    floor: int
    world: World
    device: torch.device
    sharded: bool = False
    say: Callable[[str], None] = field(default=lambda message: None, repr=False)

    def run(self, step: Callable[[int], Result], *, drop: Callable[[], None]) -> Result:
        """``step(tokens)``, again with half the budget as long as any process runs out of memory.

        Args:
            step: forward and backward of this process's share of a step, from gradients at zero and without any
                meeting of the processes (unless sharded); called by all of them alike.
            drop: forgets what a step left behind, such as gradients. Called in every process before a step is retried.

        Raises:
            TrainingError: out of memory with the smallest micro-batches; or at all with a sharded model, where the
                others wait inside the broken step and cannot be told to begin it anew.
        """
        while True:
            result, fault = self._attempt(step)
            if fault is not None:
                self._forget(drop)  # before the others are told: telling takes memory too
                if self.sharded:
                    self._fail_with_all(fault)
            if not self.world.any(fault is not None, device=self.device):
                return result[0]
            if fault is None:
                result.clear()
                self._forget(drop)
            self._halve()

    def _attempt(self, step: Callable[[int], Result]) -> tuple[list[Result], str | None]:
        """The step's result, or how memory ran out; the error itself, and all that it holds, is gone by then."""
        try:
            return [step(self.tokens)], None
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                return [], first_line(error)
            if self.sharded and is_left_alone(error):
                told = self.world.announced_failure()
                raise TrainingError(told or "another process failed or was ended; its own log says why") from error
            raise

    def _forget(self, drop: Callable[[], None]) -> None:
        drop()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _halve(self) -> None:
        if self.tokens <= self.floor:
            raise TrainingError(f"out of memory with micro-batches as small as they get; {ADVICE}")
        self.tokens = max(self.floor, self.tokens // 2)
        self.say(f"out of memory: the step is taken again, {self.tokens} tokens at once from here on")

    def _fail_with_all(self, fault: str) -> None:
        reason = f"out of memory ({fault}); a smaller --micro-batch-tokens with --resume, {ADVICE}"
        self.world.announce_failure(reason)
        raise TrainingError(reason)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a device or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The allocator of the CPU raises a plain RuntimeError.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def is_left_alone(error: BaseException) -> bool:
    """Whether an error says that a meeting of the processes broke, as when one of them is gone."""
    # Gloo raises plain RuntimeErrors, which name its own source files.
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def backward_in_parts(
    parts: Sequence[Part], score: Callable[[Part], Tensor], loss_of: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Forward and backward of a loss over scores that come from several forwards, with the memory of one.

    All are scored without a graph; the loss gives the gradient of each score; then part by part is scored again and
    that gradient sent back through it. Exact, for one forward more (gradient caching, Gao et al. 2021,
    arXiv 2101.06983, section 3). Not for a sharded model, unless all processes do it alike.

    Args:
        parts: what is forwarded at once, such as the rows of one prompt whose responses do not fit together.
        score: the scores of one part, (n,).
        loss_of: the loss of all parts' scores, (N,), in order.

    Returns:
        The loss and the scores, without graph.
    """
    with torch.no_grad():
        pieces = [score(part) for part in parts]
    scores = torch.cat(pieces).requires_grad_()
    loss = loss_of(scores)
    loss.backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    for part, gradient in zip(parts, torch.split(scores.grad, [len(piece) for piece in pieces]), strict=True):
        score(part).backward(gradient)  # type: ignore[no-untyped-call]
    return loss.detach(), scores.detach()


def first_line(error: BaseException) -> str:
    """The first line of an error, never empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
