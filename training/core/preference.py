"""What DPO computes: a policy's implicit reward of responses, β · ln (π / π_ref), learned like a reward model's score.

Rafailov et al. 2023 (arXiv 2305.18290): where π is best for a reward under a KL penalty β to π_ref, the reward is
β · ln (π / π_ref) up to a constant of the prompt (eq. 5), which pairs (eq. 7) and whole rankings (appendix A.3) do not
see. So the losses on it are those of ``training.core.objective``: −ln σ of differences, or Plackett and Luce's
choices; a ranking, and a prompt, weighs the same however many responses it has.

The reference is the model before the first step. Its log-probabilities are computed once, and no second model is kept.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.core.dataset import Dataset
from training.core.distributed import World
from training.core.documents import ResponseEnding
from training.core.errors import TrainingError
from training.core.halving import MicroBatchBudget
from training.core.language import LanguageModel
from training.core.log_probs import token_figures
from training.core.packing import MicroBatch, PackedRows, TokenisedExample, collate, plan_micro_batches
from training.core.scoring import Layout
from training.core.sharding import even_out
from training.core.token_places import TokenPlaces, token_places

LogProbs = NDArray[np.float32]


class PolicyResponses(Sequence[TokenisedExample]):
    """The examples of a split as a policy says them: each response ends with what stops sampling, and nothing after."""

    def __init__(self, tokenised: Sequence[TokenisedExample], ending: ResponseEnding) -> None:
        self._tokenised, self._ending = tokenised, ending

    def __len__(self) -> int:
        return len(self._tokenised)

    @overload
    def __getitem__(self, index: int) -> TokenisedExample: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenisedExample]: ...
    def __getitem__(self, index: int | slice) -> TokenisedExample | list[TokenisedExample]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        example = self._tokenised[index]
        return TokenisedExample(example.prompt, tuple(map(self._ending.cut, example.responses)))


@dataclass(frozen=True)
class Preferences:
    """A split to learn from: its rankings, and the tokens of what they rank."""

    rankings: Dataset
    responses: PolicyResponses

    def __len__(self) -> int:
        return len(self.rankings)

    def sizes(self, number: int) -> list[int]:
        """Tokens of each response of an example."""
        return [len(response) for response in self.responses[number].responses]


class Reference:
    """ln π_ref of every response token of a split, or of some of its examples; four bytes each."""

    def __init__(self, preferences: Preferences, values: LogProbs, numbers: Sequence[int] | None = None) -> None:
        """Args: ``values`` as ``response_log_probs`` gives them for ``numbers`` (ascending; all, if None).

        Raises:
            ValueError: not one value per token.
        """
        known = set(range(len(preferences)) if numbers is None else numbers)
        totals = [sum(preferences.sizes(number)) if number in known else 0 for number in range(len(preferences))]
        self._starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(totals, dtype=np.int64)])
        self.values = values
        if len(values) != self._starts[-1]:
            raise ValueError(f"{len(values)} log-probabilities of {self._starts[-1]} tokens")

    def of(self, numbers: Sequence[int]) -> Tensor:
        """Those of some examples, one after the other, (M,)."""
        pieces = [self.values[self._starts[number] : self._starts[number + 1]] for number in numbers]
        return torch.from_numpy(np.concatenate(pieces)) if pieces else torch.zeros(0)


def plan_preferences(
    responses: Sequence[TokenisedExample],
    numbers: Sequence[int],
    layout: Layout,
    *,
    tokens: int,
    world: World,
    device: torch.device,
    sharded: bool = False,
) -> list[tuple[MicroBatch, bool]]:
    """This process's micro-batches of some examples, each with whether it counts (``sharding.even_out``)."""
    longest = {number: responses[number].longest for number in numbers}
    by_length = sorted(numbers, key=lambda number: (-longest[number], number))
    batches = plan_micro_batches(responses, world.share(by_length), packed=layout.packed, budget=tokens)
    if not sharded or not by_length:
        return [(batch, True) for batch in batches]
    (spare,) = plan_micro_batches(responses, by_length[-1:], packed=layout.packed, budget=tokens)[:1]
    return even_out(batches, spare, world=world, device=device)


def tensors_of(
    responses: Sequence[TokenisedExample], batch: MicroBatch, layout: Layout, device: torch.device
) -> tuple[PackedRows, TokenPlaces]:
    """What a model forwards, and where the response tokens are predicted."""
    rows = collate(responses, batch, packed=layout.packed, pad_id=layout.pad_id, device=device)
    return rows, token_places(responses, batch, device=device)


def parts_within(batch: MicroBatch, *, tokens: int, sharded: bool) -> list[MicroBatch]:
    """Rows of one example that do not fit together go one by one, unless all processes have to do alike."""
    if batch.tokens <= tokens or len(batch.rows) == 1 or sharded:
        return [batch]
    return [MicroBatch(batch.examples, (row,)) for row in batch.rows]


# --- figures ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def response_log_probs(
    model: LanguageModel,
    responses: Sequence[TokenisedExample],
    layout: Layout,
    *,
    budget: MicroBatchBudget,
    numbers: Sequence[int] | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> LogProbs | None:
    """ln π of every response token, example by example, response by response, in every process; None if
    ``interrupted`` said so in any.

    Args:
        numbers: the examples; all, if None.

    Raises:
        TrainingError: a log-probability is not finite, or out of memory however little goes at once.
    """

    wanted = list(range(len(responses)) if numbers is None else numbers)

    def share(tokens: int) -> dict[int, LogProbs]:
        return dict(_log_probs_of_share(model, responses, wanted, layout, budget, tokens, interrupted))

    found = budget.run(share, drop=lambda: None)
    together = {number: values for part in budget.world.gather(found) for number, values in part.items()}
    if not all(bool(np.isfinite(values).all()) for values in together.values()):
        raise TrainingError("the model gives log-probabilities that are not finite")
    if len(together) < len(wanted):
        return None
    return np.concatenate([np.zeros(0, np.float32), *(together[number] for number in wanted)])


def _log_probs_of_share(
    model: LanguageModel,
    responses: Sequence[TokenisedExample],
    numbers: Sequence[int],
    layout: Layout,
    budget: MicroBatchBudget,
    tokens: int,
    interrupted: Callable[[], bool],
) -> Iterator[tuple[int, LogProbs]]:
    plan = plan_preferences(
        responses, numbers, layout,
        tokens=tokens, world=budget.world, device=model.device, sharded=budget.sharded,
    )  # fmt: skip
    for batch, counts in plan:
        if budget.world.any(interrupted(), device=model.device) if budget.sharded else interrupted():
            return
        parts = parts_within(batch, tokens=tokens, sharded=budget.sharded)
        tensors = (tensors_of(responses, part, layout, model.device) for part in parts)
        flat = torch.cat([token_figures(model, *each, entropy=False).log_probs for each in tensors]).cpu()
        sizes = [sum(map(len, responses[number].responses)) for number in batch.examples]
        if counts:
            yield from zip(batch.examples, (part.numpy() for part in torch.split(flat, sizes)), strict=True)


def implicit_rewards(
    preferences: Preferences, log_probs: LogProbs, reference: Reference, *, beta: float
) -> list[list[float]]:
    """β · Σ_t ln (π / π_ref) of each response, example by example."""
    ratio = log_probs.astype(np.float64) - reference.values
    found, start = [], 0
    for number in range(len(preferences)):
        rewards = []
        for size in preferences.sizes(number):
            rewards.append(beta * float(ratio[start : start + size].sum()))
            start += size
        found.append(rewards)
    return found


def packing_error(model: LanguageModel, longest: TokenisedExample, *, pad_id: int) -> float:
    """How far log-probabilities of an example's tokens are apart, packed and separate, relative to max(1, |ln π|); in
    float32, of its longest responses, four at most."""
    some = [TokenisedExample(longest.prompt, tuple(sorted(longest.responses, key=len)[-4:]))]
    exact = replace(model, autocast_dtype=torch.float32)
    found = []
    for packed in (True, False):
        layout = Layout(packed, pad_id)
        (batch,) = plan_micro_batches(some, [0], packed=packed, budget=some[0].tokens)
        found.append(token_figures(exact, *tensors_of(some, batch, layout, model.device), entropy=False).log_probs)
    gaps = (found[0] - found[1]).abs() / found[1].abs().clamp(min=1)
    # A NaN compares as no gap at all.
    return float(gaps.max()) if bool(gaps.isfinite().all()) else float("inf")
