"""Examples with their ids: what a split becomes before training or scoring."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from training.core.distributed import World
from training.core.errors import TrainingError
from training.core.examples import Example, build_examples
from training.core.modeling import RewardModel
from training.core.packing import MicroBatch, TokenisedExample, collate, lay_rows, plan_micro_batches
from training.core.records import Message, RankingRecord, Response
from training.core.tokens import ChatEncoder, EncodedPrompt


@dataclass(frozen=True)
class Dataset:
    """The examples of one split and their ids, side by side."""

    examples: list[Example]
    tokenised: list[TokenisedExample]

    @property
    def rankings(self) -> int:
        """Rankings over all examples."""
        return sum(len(example.rankings) for example in self.examples)

    @property
    def pairs(self) -> int:
        """Pairs over all rankings."""
        return sum(len(ranking.pairs) for example in self.examples for ranking in example.rankings)


@dataclass(frozen=True)
class Layout:
    """How ids become rows: packed or one response a row, and how many tokens go at once."""

    packed: bool
    budget: int
    pad_id: int


def build_dataset(
    records: Iterable[RankingRecord], encoder: ChatEncoder, *, ties: str, max_length: int, dropped: Counter[str]
) -> Dataset:
    """Encode each distinct prompt and response once, and group the rankings that fit; see ``build_examples``."""
    prompts: dict[tuple[Message, ...], EncodedPrompt] = {}
    responses: dict[tuple[tuple[Message, ...], Response], tuple[int, ...]] = {}

    def fits(prompt: tuple[Message, ...], response: Response) -> bool:
        if prompt not in prompts:
            prompts[prompt] = encoder.encode_prompt(prompt)
        if (prompt, response) not in responses:
            responses[prompt, response] = encoder.encode_response(prompt, prompts[prompt], response)
        return len(prompts[prompt].ids) + len(responses[prompt, response]) <= max_length

    examples = build_examples(records, ties=ties, show_thinking=encoder.show_thinking, fits=fits, dropped=dropped)
    tokenised = [
        TokenisedExample(
            prompts[example.prompt].ids, tuple(responses[example.prompt, response] for response in example.responses)
        )
        for example in examples
    ]
    return Dataset(examples, tokenised)


def pair_tensors(examples: Sequence[Example], batch: MicroBatch, *, device: torch.device) -> tuple[Tensor, ...]:
    """First, second, outcome and weight of all pairs of a micro-batch, positions counted over its scores."""
    first, second, outcome, weight = [], [], [], []
    offset = 0
    for number in batch.examples:
        for pair in examples[number].pairs:
            first.append(offset + pair.first)
            second.append(offset + pair.second)
            outcome.append(pair.outcome)
            weight.append(pair.weight)
        offset += len(examples[number].responses)
    return (
        torch.tensor(first, device=device),
        torch.tensor(second, device=device),
        torch.tensor(outcome, device=device),
        torch.tensor(weight, device=device),
    )


@torch.no_grad()
def score_dataset(
    model: RewardModel,
    dataset: Dataset,
    layout: Layout,
    *,
    world: World,
    interrupted: Callable[[], bool] = lambda: False,
) -> list[list[float]] | None:
    """Scores of all responses, example by example, in every process; None if ``interrupted`` said so in any.

    Raises:
        TrainingError: a score is not finite.
    """
    found: dict[int, list[float]] = {}
    numbers = world.share(list(range(len(dataset.tokenised))))
    for batch in plan_micro_batches(dataset.tokenised, numbers, packed=layout.packed, budget=layout.budget):
        if interrupted():
            break
        rows = collate(
            dataset.tokenised, batch, packed=layout.packed, pad_id=layout.pad_id, device=model.device
        )  # fmt: skip
        scores = iter(model.score(rows).tolist())
        for number in batch.examples:
            found[number] = [next(scores) for _ in dataset.examples[number].responses]
    together = {number: scores for part in world.gather(found) for number, scores in part.items()}
    if not all(math.isfinite(score) for scores in together.values() for score in scores):
        raise TrainingError("the model gives scores that are not finite")
    if len(together) < len(dataset.examples):
        return None
    return [together[number] for number in range(len(dataset.examples))]


def packing_error(model: RewardModel, dataset: Dataset, *, pad_id: int) -> float:
    """How far packed and separate scores of the longest example are apart, relative to max(1, |score|).

    In float32, on its longest responses, four at most; the packed row is never split here.
    """
    longest = max(dataset.tokenised, key=lambda example: example.longest)
    some = TokenisedExample(longest.prompt, tuple(sorted(longest.responses, key=len)[-4:]))
    exact = RewardModel(model.whole, model.adapter, model.device, torch.float32)
    scores = []
    for packed in (True, False):
        rows = lay_rows(some, number=0, packed=packed, budget=some.tokens)
        batch = collate([some], MicroBatch((0,), tuple(rows)), packed=packed, pad_id=pad_id, device=model.device)
        with torch.no_grad():
            scores.append(exact.score(batch))
    gaps = (scores[0] - scores[1]).abs() / scores[1].abs().clamp(min=1)
    # A NaN compares as no gap at all.
    return float(gaps.max()) if bool(gaps.isfinite().all()) else float("inf")


def model_fingerprint(name: str) -> str:
    """What tells two base models apart, wherever their folder lies: a hash of its small files and of the weights' sizes
    and ends; the name itself where it is no folder (a hub id)."""
    folder = Path(name)
    if not folder.is_dir():
        return name
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors":
            with open(path, "rb") as file:
                head = file.read(1 << 20)
                file.seek(max(0, path.stat().st_size - (1 << 20)))
                digest.update(f"{path.name} {path.stat().st_size}".encode() + head + file.read())
        elif path.suffix in (".json", ".jinja", ".model", ".txt"):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
