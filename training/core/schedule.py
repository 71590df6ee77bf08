"""The course of a run: which prompts each step takes, at which learning rate. Pure: a resume needs no state of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from training.core.randomness import permutation


@dataclass(frozen=True)
class Course:
    """Steps of ``batch_size`` prompts over fresh permutations of ``prompts`` prompts, ``steps`` in all."""

    prompts: int
    batch_size: int
    steps: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass; the last one of a pass may be smaller."""
        return math.ceil(self.prompts / self.batch_size)

    def batch(self, step: int) -> list[int]:
        """The prompts of a step (from 1), in the order of its pass's permutation."""
        epoch, place = divmod(step - 1, self.steps_per_epoch)
        order = permutation(self.prompts, self.seed, epoch)
        return order[place * self.batch_size : (place + 1) * self.batch_size]

    def visited(self) -> list[int]:
        """The prompts that any step takes, in ascending order."""
        if self.steps >= self.steps_per_epoch:
            return list(range(self.prompts))
        return sorted(permutation(self.prompts, self.seed, 0)[: self.steps * self.batch_size])

    def ends_epoch(self, step: int) -> bool:
        """Whether the step (from 1) is the last of its pass."""
        return step % self.steps_per_epoch == 0


def make_course(*, prompts: int, batch_size: int, epochs: int, max_steps: int | None, seed: int) -> Course:
    """``max_steps`` steps if given, else ``epochs`` whole passes."""
    steps = max_steps or epochs * math.ceil(prompts / batch_size)
    return Course(prompts=prompts, batch_size=batch_size, steps=steps, seed=seed)


def learning_rate(step: int, *, steps: int, peak: float, warmup: float, schedule: str) -> float:
    """The rate of a step (from 1): a linear rise over the first ``warmup`` share of the steps, then the schedule.

    cosine and linear reach 0 one step after the last, so that no step is spent at rate 0.
    """
    rising = math.ceil(warmup * steps)
    if step <= rising:
        return peak * step / rising
    share = (step - 1 - rising) / (steps - rising)
    shapes: dict[str, Callable[[float], float]] = {
        "cosine": lambda x: 0.5 * (1 + math.cos(math.pi * x)),
        "linear": lambda x: 1 - x,
        "constant": lambda x: 1.0,
    }
    return peak * shapes[schedule](share)
