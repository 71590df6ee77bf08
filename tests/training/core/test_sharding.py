"""A model sharded over two processes computes what one process computes, and is saved as if it had never been."""

from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from tests.training.ranks import run_ranks
from training.core.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from training.core.distributed import World, clip_gradients, is_sharded, whole_tensor
from training.core.errors import TrainingError, UsageError
from training.core.halving import MicroBatchBudget
from training.core.modeling import RewardModel, add_lora, load_reward_model
from training.core.packing import PACKABLE_TYPES, MicroBatch, PackedRows, Row, collate
from training.core.saving import save_reward_model
from training.core.sharding import decoder_layers, empty_loss, even_out, gather_model, shard_model

CPU = torch.device("cpu")
KINDS = ("plain", "checkpointing", "lora", "bfloat16")


class Prompt:
    """One prompt's ids with the ids of its responses."""

    def __init__(self, number: int, responses: int) -> None:
        self.prompt = tuple(range(10 + number, 14 + 2 * number))
        self.responses = tuple(tuple(range(40 + 7 * number + place, 45 + 9 * number)) for place in range(responses))


# Three for the first process, two for the second, which has a forward less to make.
PROMPTS = [Prompt(number, responses) for number, responses in enumerate((2, 3, 4, 2, 3))]


class Job:
    """A tiny model with a threshold beside it, and a step of plain gradient descent over all prompts."""

    def __init__(self, folder: Path, kind: str, world: World) -> None:
        self.world = world
        arithmetic = torch.bfloat16 if kind == "bfloat16" else torch.float32
        self.model = load_reward_model(str(folder), seed=0, device=CPU, autocast_dtype=arithmetic)
        if kind == "lora":
            self.model = add_lora(self.model, rank=2, seed=0)
            for name, value in self.model.trainable():  # B starts at zero, and A's gradient with it
                if "lora_B" in name:
                    nn.init.constant_(value, 0.02)
        if kind == "checkpointing":
            self.model.whole.activation_checkpointing_enable()
        self.model.whole.train()
        if world.size > 1:
            shard_model(self.model, world)
        self.threshold = nn.Parameter(torch.tensor(0.3))
        self.parameters = {**dict(self.model.trainable()), "threshold": self.threshold}

    def rows(self, number: int) -> PackedRows:
        prompt = PROMPTS[number]
        length = len(prompt.prompt) + sum(map(len, prompt.responses))
        batch = MicroBatch((number,), (Row(number, tuple(range(len(prompt.responses))), length),))
        return collate(PROMPTS, batch, packed=True, pad_id=0, device=CPU)  # type: ignore[arg-type]

    def forward_and_backward(self) -> float:
        """The loss of the whole step; the gradients are those of this process alone, but for sharded ones."""
        total = torch.zeros(())
        mine = self.world.share(list(range(len(PROMPTS))))
        for number, counts in even_out(mine, 0, world=self.world, device=CPU):
            scores = self.model.score(self.rows(number))
            loss = self.loss(scores) if counts else empty_loss(scores)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return float(self.world.total(total))

    def loss(self, scores: Tensor) -> Tensor:
        """Each response beats the next by the threshold."""
        return -logsigmoid(scores[:-1] - scores[1:] - self.threshold).mean() / len(PROMPTS)

    def step(self) -> dict[str, Any]:
        loss = self.forward_and_backward()
        self.world.sum_gradients(self.parameters.values())
        gradients = arrays({name: value.grad for name, value in self.parameters.items()})
        norm = clip_gradients(self.parameters.values(), 0.05)
        clipped = arrays({name: value.grad for name, value in self.parameters.items()})
        torch.optim.SGD(self.parameters.values(), lr=1.0).step()
        return {"loss": loss, "gradients": gradients, "norm": norm, "clipped": clipped, "weights": self.weights()}

    def scores(self) -> list[float]:
        """Of the longest prompt, without gradients; the same in every process."""
        with torch.no_grad():
            return self.model.score(self.rows(2)).tolist()

    def weights(self) -> dict[str, Any]:
        return arrays(self.parameters)


def arrays(tensors: dict[str, Any]) -> dict[str, Any]:
    """Whole tensors that can be sent to another process."""
    return {name: whole_tensor(value).clone().numpy() for name, value in tensors.items()}  # type: ignore[union-attr]


def adam(job: Job) -> torch.optim.Optimizer:
    """The thresholds in a group of their own: one call of AdamW takes no sharded parameters beside others."""
    sharded = [value for name, value in job.parameters.items() if name != "threshold"]
    return torch.optim.AdamW([{"params": sharded}, {"params": [job.threshold]}], lr=1e-3, fused=True)


def take_adam_steps(job: Job, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        job.forward_and_backward()
        job.world.sum_gradients(job.parameters.values())
        optimizer.step()


def compute(folder: Path, kind: str, world: World) -> dict[str, Any]:
    job = Job(folder, kind, world)
    return {"scores": job.scores(), **job.step(), "later": job.scores()}


def look_at_shards(world: World, folder: Path) -> dict[str, Any]:
    job = Job(folder, "plain", world)
    job.scores()  # must leave nothing whole behind
    found = dict(job.model.whole.named_parameters())
    return {
        "placements": {str(value.placements) for value in found.values()},
        "kinds": {type(value).__name__ for value in found.values()},
        "local": sum(value.to_local().numel() for value in found.values()),
        "whole": sum(value.numel() for value in found.values()),
        "dtypes": {value.to_local().dtype for value in found.values()},
    }


def save_and_resume(world: World, folder: Path, output: Path) -> dict[str, Any]:
    job = Job(folder, "plain", world)
    optimizer = adam(job)
    take_adam_steps(job, optimizer, 2)
    checkpoint = save_checkpoint(
        output / "checkpoints", step=2, parameters=dict(job.parameters), optimizer=optimizer,
        state={"skipped_steps": 0}, keep=2, writes=world.is_main,
    )  # fmt: skip
    world.total(torch.zeros(1))  # as the loop does before the next step: the file is there
    at_save = job.weights()
    take_adam_steps(job, optimizer, 1)

    again = Job(folder, "plain", world)
    again.scores()  # weights put together before the load must not be used after it
    optimizer = adam(again)
    load_checkpoint(checkpoint, parameters=again.parameters, optimizer=optimizer)
    moments = {type(state["exp_avg_sq"]).__name__ for state in optimizer.state.values()}
    answer = {"saved": at_save, "loaded": again.weights(), "loaded_scores": again.scores(), "moments": moments}
    take_adam_steps(again, optimizer, 1)
    return {**answer, "straight": job.weights(), "resumed": again.weights()}


def save_model(world: World, folder: Path, output: Path, kind: str) -> list[float]:
    job = Job(folder, kind, world)
    scores = job.scores()
    gather_model(job.model, world)
    if world.is_main:
        save_reward_model(
            job.model, AutoTokenizer.from_pretrained(folder), output / kind / "model", card="A card.",
            adapter=output / kind / "adapter",
        )  # fmt: skip
    return scores


def do_all(world: World, folder: Path, output: Path) -> dict[str, Any]:
    torch.use_deterministic_algorithms(True)
    return {
        **{kind: compute(folder, kind, world) for kind in KINDS},
        "shards": look_at_shards(world, folder),
        "resume": save_and_resume(world, folder, output),
        **{f"saved {kind}": save_model(world, folder, output, kind) for kind in ("plain", "lora")},
    }


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def ranks(fork_server: ForkServerContext, tiny_model: Path, output: Path) -> Iterator[list[Any]]:
    answers = run_ranks(fork_server, do_all, tiny_model, output)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    yield answers


def test_every_parameter_is_a_shard(ranks: list[Any]) -> None:
    for answers in ranks:
        shards = answers["shards"]
        assert shards["kinds"] == {"DTensor"}
        assert shards["placements"] == {"(Shard(dim=0),)"}
        assert shards["dtypes"] == {torch.float32}
        # The head's one row cannot be cut.
        assert shards["local"] == pytest.approx(shards["whole"] / 2, rel=0.01)
    assert sum(answers["shards"]["local"] for answers in ranks) == ranks[0]["shards"]["whole"]


@pytest.mark.parametrize("kind", KINDS)
def test_scores_loss_gradients_and_a_step_are_those_of_one_process(
    ranks: list[Any], tiny_model: Path, kind: str
) -> None:
    alone = compute(tiny_model, kind, World())
    assert abs(alone["scores"][0] - alone["later"][0]) > 1e-3  # the step did something
    for answers in ranks:
        found = answers[kind]
        for name in ("scores", "loss", "later"):
            assert found[name] == pytest.approx(alone[name], rel=1e-5, abs=1e-5), name
        assert found["norm"] == pytest.approx(alone["norm"], rel=1e-5)
        for what in ("gradients", "clipped", "weights"):
            assert found[what].keys() == alone[what].keys()
            for name, expected in alone[what].items():
                difference = torch.tensor(found[what][name] - expected).norm()
                assert float(difference) <= 1e-5 * float(torch.tensor(expected).norm()), (what, name)
    assert ranks[0][kind]["norm"] == ranks[1][kind]["norm"] > 0.05  # it was clipped


def test_training_goes_on_from_a_sharded_checkpoint_tensor_by_tensor(ranks: list[Any]) -> None:
    for answers in ranks:
        resume = answers["resume"]
        for before, after in (("saved", "loaded"), ("straight", "resumed")):
            for name, value in resume[before].items():
                assert (resume[after][name] == value).all(), (before, name)
        assert any((resume["straight"][name] != value).any() for name, value in resume["saved"].items())
        assert resume["moments"] == {"DTensor", "Tensor"}


def test_the_checkpoint_is_that_of_one_process(ranks: list[Any], tiny_model: Path, output: Path) -> None:
    job = Job(tiny_model, "plain", World())
    optimizer = adam(job)
    load_checkpoint(Checkpoint(output / "checkpoints" / "step-2", 2), parameters=job.parameters, optimizer=optimizer)
    saved = ranks[0]["resume"]
    assert all((value == saved["saved"][name]).all() for name, value in job.weights().items())
    assert job.scores() == pytest.approx(saved["loaded_scores"], rel=1e-5, abs=1e-5)
    assert ranks[1]["resume"]["loaded_scores"] == saved["loaded_scores"]
    take_adam_steps(job, optimizer, 1)  # the moments are of use
    for name, value in job.weights().items():
        assert torch.tensor(value - saved["resumed"][name]).abs().max() <= 1e-5, name


@pytest.mark.parametrize("kind", ["plain", "lora"])
def test_the_saved_model_scores_as_the_sharded_one(ranks: list[Any], output: Path, kind: str) -> None:
    saved = load_reward_model(str(output / kind / "model"), seed=9, device=CPU, autocast_dtype=torch.float32)
    assert not any(is_sharded(value) for value in saved.whole.parameters())
    with torch.no_grad():
        found = saved.score(Job.rows(None, 2)).tolist()  # type: ignore[arg-type]
    for answers in ranks:
        assert found == pytest.approx(answers[f"saved {kind}"], abs=1e-5)


# --- what cannot be sharded, and what goes wrong ----------------------------------------------------------------------


def run_out_of_memory(world: World, folder: Path, failing: int) -> str:
    """One process fails in the middle of its forward pass, while the other waits for it there."""
    job = Job(folder, "plain", world)
    if world.rank == failing:
        job.model.whole.base_model.layers[1].register_forward_hook(fail)
    budget = MicroBatchBudget(64, 1, world, CPU, sharded=True)
    try:
        budget.run(lambda tokens: job.forward_and_backward(), drop=lambda: None)
    except TrainingError as error:
        return str(error)
    return "went on"


def fail(*_: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore words.")


@pytest.mark.parametrize("failing", [0, 1])
def test_out_of_memory_ends_every_process_instead_of_waiting(
    fork_server: ForkServerContext, tiny_model: Path, failing: int
) -> None:
    answers = run_ranks(fork_server, run_out_of_memory, tiny_model, failing)
    said, heard = answers[failing], answers[1 - failing]
    assert said.startswith("out of memory (CUDA out of memory. Tried to allocate 2.00 GiB.); a smaller --micro-batch")
    # The word of the first process may be gone with it: it keeps the store.
    assert heard == f"process {failing}: {said}" or (failing == 0 and heard.startswith("another process failed"))


@pytest.mark.parametrize("kind", sorted(PACKABLE_TYPES - {"granite"}))  # granite has no classification model
def test_the_layers_of_every_packable_architecture_are_found(kind: str) -> None:
    config = AutoConfig.for_model(kind, num_hidden_layers=3, num_labels=1)
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    layers = decoder_layers(model.base_model, count=3)
    assert layers is not None
    held = sum(value.numel() for value in layers.parameters())
    embedding = model.get_input_embeddings().weight.numel()
    assert held > 0.9 * (sum(value.numel() for value in model.parameters()) - embedding)


def test_layers_are_found_by_their_number_and_only_if_there_is_no_doubt() -> None:
    def stack(count: int, make: Any = lambda: nn.Linear(2, 2)) -> nn.ModuleList:
        return nn.ModuleList(make() for _ in range(count))

    body = nn.Module()
    body.blocks = stack(3, lambda: nn.Sequential(stack(3), nn.Linear(1, 1)))  # with experts in each
    assert decoder_layers(body, count=3) is body.blocks
    assert decoder_layers(body, count=4) is None
    body.encoder = stack(3)
    assert decoder_layers(body, count=3) is None


def test_one_process_is_refused(tiny_reward: RewardModel) -> None:
    with pytest.raises(UsageError, match="several processes"):
        shard_model(tiny_reward, World())


def test_a_model_without_known_layers_is_refused(tiny_reward: RewardModel) -> None:
    tiny_reward.whole.config.num_hidden_layers = 7
    with pytest.raises(UsageError, match="architecture llama"):
        shard_model(tiny_reward, World(rank=0, size=2))
