"""Out of memory in one process halves the micro-batches of all, and changes no result."""

import gc
import weakref
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.ranks import run_ranks
from training.core import distributed
from training.core.distributed import World, clip_gradients
from training.core.errors import TrainingError
from training.core.halving import MicroBatchBudget, backward_in_parts, is_out_of_memory

CPU = torch.device("cpu")
# What the CPU allocator says, in the words of torch 2.13.
HOST_FULL = "[enforce fail at alloc_cpu.cpp:128] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."
# Where a process runs out: in the forward or the backward pass, of the first micro-batch or a later one.
POINTS = [(0, "forward"), (0, "backward"), (1, "forward"), (1, "backward")]


class Trap(torch.autograd.Function):
    """The identity, whose backward pass runs out of memory if it is set."""

    @staticmethod
    def forward(context: Any, value: Tensor, is_set: bool) -> Tensor:
        context.is_set = is_set
        return value.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Any:
        if context.is_set:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return gradient, None


class Job:
    """A regression over 16 rows cut into micro-batches of ``tokens`` rows, shared by the processes."""

    def __init__(self, world: World) -> None:
        torch.manual_seed(0)
        self.world = world
        self.module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
        self.rows = torch.randn(16, 5)
        self.faults: list[tuple[int, int, str]] = []  # (least budget, micro-batch, pass) that run out of memory
        self.tried: list[int] = []

    def step(self, tokens: int) -> float:
        self.tried.append(tokens)
        mine = self.world.share(list(range(16)))
        total = 0.0
        for number, start in enumerate(range(0, len(mine), tokens)):
            faults = {kind for least, place, kind in self.faults if tokens >= least and place == number}
            if "forward" in faults:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            out = Trap.apply(self.module(self.rows[mine[start : start + tokens]]), "backward" in faults)
            loss = out.square().sum() / 16
            loss.backward()
            total += float(loss.detach())
        return total

    def drop(self) -> None:
        self.module.zero_grad(set_to_none=True)

    def budget(self, tokens: int, *, floor: int = 1) -> MicroBatchBudget:
        return MicroBatchBudget(tokens, floor, self.world, CPU)

    def finish(self, loss: float) -> tuple[float, list[float]]:
        """The loss of the whole step and its summed gradients."""
        self.world.sum_gradients(self.module.parameters())
        gradients = [value for each in self.module.parameters() for value in each.grad.reshape(-1).tolist()]
        return float(self.world.total(torch.tensor(loss))), gradients


def run_out_on_rank_one(world: World) -> list[dict[str, Any]]:
    answers = []
    for place, kind in POINTS:
        job = Job(world)
        if world.rank == 1:
            job.faults = [(3, place, kind)]
        budget = job.budget(4)
        first = job.finish(budget.run(job.step, drop=job.drop))
        job.drop()
        again = job.finish(budget.run(job.step, drop=job.drop))
        answers.append({"tried": job.tried, "first": first, "again": again})
    return answers


def run_out_for_good(world: World) -> str:
    job = Job(world)
    if world.rank == 1:
        job.faults = [(1, 0, "backward")]
    with pytest.raises(TrainingError) as caught:
        job.budget(4, floor=2).run(job.step, drop=job.drop)
    assert job.tried == [4, 2]
    assert all(value.grad is None for value in job.module.parameters())
    return str(caught.value)


def meet_a_nan(world: World) -> tuple[float, float]:
    """One process's micro-batch is not finite: the norm that decides about skipping, in this one; and a sound one."""
    job = Job(world)
    norms = []
    for rank_of_nan in (1, None):
        job.drop()
        scale = float("nan") if world.rank == rank_of_nan else 1.0
        (job.module(job.rows[world.rank :: 2]).square().sum() * scale).backward()
        world.sum_gradients(job.module.parameters())
        norms.append(clip_gradients(job.module.parameters(), 1.0))
    return norms[0], norms[1]


def do_all(world: World) -> dict[str, Any]:
    return {"halved": run_out_on_rank_one(world), "floor": run_out_for_good(world), "nan": meet_a_nan(world)}


@pytest.fixture(scope="module")
def ranks(fork_server: ForkServerContext) -> Iterator[list[Any]]:
    answers = run_ranks(fork_server, do_all)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    yield answers


@pytest.fixture(autouse=True)
def small_heap() -> Iterator[None]:
    """A collection need not walk all that the tests have imported."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def alone() -> tuple[float, list[float]]:
    job = Job(World())
    return job.finish(job.step(16))


@pytest.mark.parametrize("point", range(len(POINTS)), ids=[f"{kind}-{place}" for place, kind in POINTS])
def test_all_processes_halve_together_with_the_same_result(
    ranks: list[Any], alone: tuple[float, list[float]], point: int
) -> None:
    for answers in ranks:
        answer = answers["halved"][point]
        assert answer["tried"] == [4, 2, 2]  # once in vain, once halved, and the later step halved from the start
        for loss, gradients in (answer["first"], answer["again"]):
            assert loss == pytest.approx(alone[0], rel=1e-5)
            difference = torch.tensor(gradients) - torch.tensor(alone[1])
            assert float(difference.norm()) <= 1e-5 * float(torch.tensor(alone[1]).norm())


def test_at_the_floor_all_processes_say_what_to_do(ranks: list[Any]) -> None:
    for answers in ranks:
        assert all(flag in answers["floor"] for flag in ("--max-length", "--lora-rank", "--gradient-checkpointing"))


def test_a_norm_that_is_not_finite_is_so_everywhere(ranks: list[Any]) -> None:
    (bad, sound), (bad_too, sound_too) = (answers["nan"] for answers in ranks)
    assert bad != bad and bad_too != bad_too
    assert sound == sound_too
    job = Job(World())
    job.module(job.rows).square().sum().backward()
    assert sound == pytest.approx(clip_gradients(job.module.parameters(), 1.0), rel=1e-5)


def test_one_process_halves_by_itself_and_tells() -> None:
    job = Job(World())
    job.faults = [(4, 1, "backward")]
    budget = job.budget(7)
    told: list[str] = []
    budget.say = told.append
    loss = budget.run(job.step, drop=job.drop)
    assert job.tried == [7, 3]
    assert (budget.tokens, loss) == (3, pytest.approx(Job(World()).step(16), rel=1e-5))
    assert told == ["out of memory: the step is taken again, 3 tokens at once from here on"]


def test_nothing_of_the_failed_step_is_held_when_it_is_taken_again() -> None:
    held: list[Any] = []

    class Heavy:
        pass

    def step(tokens: int) -> int:
        assert all(reference() is None for reference in held)
        heavy = Heavy()
        held.append(weakref.ref(heavy))
        if tokens > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return tokens

    assert Job(World()).budget(8).run(step, drop=lambda: None) == 2
    assert len(held) == 3


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("no")])
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    def step(tokens: int) -> None:
        raise error

    with pytest.raises(type(error)):
        Job(World()).budget(8).run(step, drop=lambda: None)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True), (RuntimeError(HOST_FULL), True), (MemoryError(), True),
        (RuntimeError("shape mismatch"), False), (ValueError("can't allocate memory"), False),
    ],
)  # fmt: skip
def test_what_counts_as_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_the_host_s_own_words() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_parts_give_the_gradients_of_the_whole_with_one_graph_at_a_time() -> None:
    job = Job(World())
    offset = nn.Parameter(torch.tensor(0.5))  # of the loss itself, as a threshold is
    graphs: list[Any] = []

    def score(rows: slice) -> Tensor:
        assert all(reference() is None for reference in graphs)
        scores: Tensor = job.module(job.rows[rows]).squeeze(-1)
        if scores.requires_grad:
            graphs.append(weakref.ref(scores))
        return scores

    def loss_of(scores: Tensor) -> Tensor:
        return -(scores[:, None] - scores[None, :] - offset).sigmoid().log().mean()

    parameters = [*job.module.parameters(), offset]
    loss, scores = backward_in_parts([slice(0, 5), slice(5, 6), slice(6, 16)], score, loss_of)
    assert len(graphs) == 3
    found = [parameter.grad.clone() for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    whole = job.module(job.rows).squeeze(-1)
    loss_of(whole).backward()
    assert float(loss) == pytest.approx(float(loss_of(whole)), rel=1e-6)
    assert scores.tolist() == pytest.approx(whole.tolist(), rel=1e-5)
    for parameter, gradient in zip(parameters, found, strict=True):
        assert float((gradient - parameter.grad).norm()) <= 1e-5 * float(parameter.grad.norm())


def sized(counts: list[int]) -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(count)) for count in counts]


def sum_in_buckets(world: World, counts: list[int]) -> list[list[float]]:
    distributed.BUCKET_VALUES = 4
    parameters = sized(counts)
    for place, parameter in enumerate(parameters):
        if place != 1 or world.rank == 0:  # the second has a gradient in one process alone
            parameter.grad = torch.full((counts[place],), float(10 * place + world.rank + 1))
    world.sum_gradients(parameters)
    return [parameter.grad.tolist() for parameter in parameters]


def test_gradients_are_summed_whatever_the_buckets(fork_server: ForkServerContext) -> None:
    counts = [1, 3, 2, 9, 0, 1]
    for answer in run_ranks(fork_server, sum_in_buckets, counts):
        assert answer == [[3.0], [11.0] * 3, [43.0] * 2, [63.0] * 9, [], [103.0]]
