"""A run before it is made, and what is told of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from annotate.models import Project, Snapshot
from training.core.memory import LIBRARY_BYTES
from training.core.text_counts import SplitTexts
from training.core.workload import Need
from training.models import Run
from training.services.model_facts import trunk_refusal
from training.services.run_inputs import BASE, Inputs

# What learns; the others answer prompts, or score what was answered.
TRAINING_KINDS = (Run.Kind.REWARD, Run.Kind.SFT, Run.Kind.DPO, Run.Kind.PPO)


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long a run takes, at least and at most; ``runs`` timed runs say so, or with 0 the machine's kind alone."""

    low: float
    high: float
    runs: int


@dataclass(frozen=True, slots=True)
class Room:
    """Whether the workers of the queue that live now have the memory.

    ``workers`` live, ``fitting`` of them have room; ``largest_bytes`` is what a process has on the largest of them.
    """

    queue: str
    workers: int
    fitting: int
    largest_bytes: int
    on_gpu: bool


@dataclass(frozen=True)
class Estimate:
    """All that is told. ``need`` and ``seconds`` are None where they are not known, and ``why_unknown`` says why."""

    need: Need | None
    why_unknown: str
    seconds: Seconds | None
    room: Room
    exact: bool = True
    texts: Mapping[str, SplitTexts] = field(default_factory=dict)
    notices: Sequence[str] = ()
    refusals: Mapping[str, str] = field(default_factory=dict)

    @property
    def process_bytes(self) -> int:
        """What a process takes at its peak, its libraries included; 0 where it is not known."""
        return 0 if self.need is None else self.need.peak_bytes + LIBRARY_BYTES


@dataclass(frozen=True)
class Plan:
    """A run whose settings and models have been checked, and which is not made yet; "" leaves the queue to the rule."""

    project: Project
    kind: str
    snapshot: Snapshot
    models: Inputs
    config: Mapping[str, Any]
    queue: str = ""
    processes: int = 1
    nodes: int = 1


def needed_bytes(plan: Plan, need: Need) -> int:
    """Of a process with its libraries."""
    return _peak(plan, need) + LIBRARY_BYTES


def _peak(plan: Plan, need: Need) -> int:
    """Sharded over several processes, each keeps its part of what lies still."""
    saved = need.rest_bytes * (1 - 1 / (plan.processes * plan.nodes)) if plan.config.get("shard") else 0
    return int(need.peak_bytes - saved)


def why_no_shared_trunk(plan: Plan) -> str:
    """Why the models of a PPO run keep weights of their own, in words; "" if they share a base."""
    named = plan.models.named
    return trunk_refusal(
        base=named[BASE], reward=named.get("reward_model"), lora_rank=plan.config["lora_rank"],
        trunk=plan.config["trunk"],
    )  # fmt: skip


def gib(size: float) -> str:
    """A size in GiB, for people."""
    return f"{size / 2**30:.1f} GiB"
