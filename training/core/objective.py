"""What a reward model is trained towards: the flags about losses, ties and strengths as one module.

Loss = (Σ_prompt weighted mean over its rankings of the mean over their pairs, or choices) / prompts of the step, plus
the centring term. A prompt with nine responses weighs as one with two, a prompt ranked by five people as one ranked by
one.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from training.core.errors import UsageError
from training.core.examples import Example, JudgedRanking, weighted_pairs
from training.core.losses import (
    SOFT_TIE_LIMIT,
    PairModel,
    Pairs,
    RankingTies,
    TieredRanking,
    centring,
    count_choices,
    outcome_log_probabilities,
    pairwise_loss,
    plackett_luce_loss,
)
from training.core.thresholds import Floats, TierSizes, pair_thresholds


@dataclass(frozen=True)
class ObjectiveSettings:
    """The flags of the same names; ``recipes.configs`` says which go together."""

    loss: str = "pairwise"
    ties: str = "skip"
    unranked: str = "ignore"
    strength: str = "ignore"
    margin_scale: float = 0.5
    centring: float = 0.0

    @property
    def counts_ties(self) -> bool:
        """Whether two responses of one tier say something."""
        return self.ties != "skip"

    @property
    def counts_unranked(self) -> bool:
        """Whether what was left unranked stands below what was placed."""
        return self.unranked == "below"

    @property
    def pair_model(self) -> PairModel:
        """The model of a pair's outcome; under Plackett-Luce what its rankings of two say."""
        if self.strength == "ordinal":
            return "ordinal"
        models: dict[str, PairModel] = {"rao-kupper": "rao-kupper", "davidson": "davidson"}
        return models.get(self.ties, "bradley-terry")

    @property
    def ranking_ties(self) -> RankingTies:
        """How Plackett-Luce takes tiers of several."""
        kinds: dict[str, RankingTies] = {"davidson": "davidson", "soft": "soft"}
        return kinds.get(self.ties, "skip")


@dataclass(frozen=True)
class TieFacts:
    """Of the training rankings: the share of ties among the pairs that were placed, and the largest tier."""

    tie_share: float
    largest_tier: int


class Objective(nn.Module):
    """The loss of a step, with the thresholds that are learned beside the model."""

    def __init__(self, settings: ObjectiveSettings, facts: TieFacts) -> None:
        """Args: ``facts`` give the thresholds their starting values.

        Raises:
            UsageError: a tier of the data is larger than the loss can take.
        """
        super().__init__()
        self.settings = settings
        self.thresholds: nn.Module
        if settings.loss == "plackett-luce" and settings.ties == "soft" and facts.largest_tier > SOFT_TIE_LIMIT:
            raise UsageError(
                f"a ranking ties {facts.largest_tier} responses: --loss plackett-luce --ties soft takes up to "
                f"{SOFT_TIE_LIMIT}, --ties davidson any number"
            )
        if settings.loss == "plackett-luce" and settings.ties == "davidson":
            self.thresholds = TierSizes(facts.tie_share, largest_tier=max(2, facts.largest_tier))
        else:
            self.thresholds = pair_thresholds(settings.pair_model, tie_share=facts.tie_share)

    def forward(self, scores: Tensor, examples: Sequence[Example], *, prompts: int) -> Tensor:
        """This micro-batch's part of the loss of a step of ``prompts`` prompts; parts add up.

        Shapes: ``scores`` (N,), one per response of ``examples``, in their order.
        """
        judge = self._judge_rankings if self.settings.loss == "plackett-luce" else self._judge_pairs
        loss = judge(scores, examples) / prompts
        if self.settings.centring:
            rows = [number for number, example in enumerate(examples) for _ in example.lengths]
            loss = loss + self.settings.centring * centring(scores, torch.tensor(rows, device=scores.device)) / prompts
        return loss

    @torch.no_grad()
    def held_out_loss(self, examples: Sequence[Example], scores: Sequence[Sequence[float]]) -> float | None:
        """−ln P of what was said of held-out pairs, weighted as in training, without margins and centring; None where
        nothing was said. Under Plackett-Luce that of its pairs.

        Args:
            scores: one per response, example by example.
        """
        pairs = gather_pairs(examples, replace(self.settings, margin_scale=0.0), device=torch.device("cpu"))
        if not len(pairs.weight):
            return None
        flat = torch.tensor([score for row in scores for score in row], dtype=torch.float64)
        loss = pairwise_loss(flat, pairs, kind=self.settings.pair_model, thresholds=self._pair_thresholds())
        return float(loss / pairs.weight.sum())

    def _pair_thresholds(self) -> Tensor:
        """Of the model of pairs; two responses under Plackett-Luce with ties are Davidson's pair."""
        thresholds: Tensor = self.thresholds().detach().double().cpu()
        return thresholds[:1] if self.settings.ties == "davidson" else thresholds

    def threshold_values(self) -> dict[str, float]:
        """The learned thresholds by name; empty where the loss has none."""
        values: dict[str, float] = self.thresholds.values()  # type: ignore[operator]
        return values

    def outcome_model(self) -> Callable[[Floats], Floats] | None:
        """ln P of [the first wins, a tie, the second wins] given the differences: (M,) to (M, 3), without margin; None
        where ties are no outcome. Under Plackett-Luce that of a ranking of two."""
        if self.settings.ties not in ("rao-kupper", "davidson"):
            return None
        thresholds, kind = self._pair_thresholds(), self.settings.pair_model
        return lambda difference: outcome_log_probabilities(kind, torch.from_numpy(difference), thresholds).numpy()

    def _judge_pairs(self, scores: Tensor, examples: Sequence[Example]) -> Tensor:
        pairs = gather_pairs(examples, self.settings, device=scores.device)
        return pairwise_loss(scores, pairs, kind=self.settings.pair_model, thresholds=self.thresholds())

    def _judge_rankings(self, scores: Tensor, examples: Sequence[Example]) -> Tensor:
        rankings = gather_rankings(examples, self.settings)
        sizes = self.thresholds() if self.settings.ties == "davidson" else None
        return plackett_luce_loss(scores, rankings, ties=self.settings.ranking_ties, log_sizes=sizes)


def gather_pairs(examples: Sequence[Example], settings: ObjectiveSettings, *, device: torch.device) -> Pairs:
    """All pairs of some examples, positions counted over their responses; the weights of an example sum to 1."""
    rows: list[tuple[int, int, float, float, float, int]] = []
    offset = 0
    for example in examples:
        found = weighted_pairs(example.rankings, ties=settings.counts_ties, below=settings.counts_unranked)
        for pair, share in found:
            margin = settings.margin_scale * pair.distance if settings.strength == "margin" else 0.0
            rows.append((offset + pair.first, offset + pair.second, pair.outcome, share, margin, pair.strength))
        offset += len(example.lengths)
    first, second, outcome, weight, margins, strength = zip(*rows, strict=True) if rows else [()] * 6
    return Pairs(
        first=torch.tensor(first, dtype=torch.long, device=device),
        second=torch.tensor(second, dtype=torch.long, device=device),
        outcome=torch.tensor(outcome, dtype=torch.float32, device=device),
        weight=torch.tensor(weight, dtype=torch.float32, device=device),
        margin=torch.tensor(margins, dtype=torch.float32, device=device),
        strength=torch.tensor(strength, dtype=torch.long, device=device),
    )


def gather_rankings(examples: Sequence[Example], settings: ObjectiveSettings) -> list[TieredRanking]:
    """All rankings that choose something, positions counted over the responses; an example's weights sum to 1."""
    found: list[TieredRanking] = []
    offset = 0
    for example in examples:
        placed = [_placed(ranking, offset, below=settings.counts_unranked) for ranking in example.rankings]
        chosen = [ranking for ranking in placed if count_choices(ranking, ties=settings.ranking_ties)]
        total = sum(ranking.weight for ranking in chosen)
        found += [TieredRanking(ranking.tiers, ranking.below, ranking.weight / total) for ranking in chosen]
        offset += len(example.lengths)
    return found


def _placed(ranking: JudgedRanking, offset: int, *, below: bool) -> TieredRanking:
    """Each text once, in the best tier where it stands: two of one text score alike and say nothing of each other."""
    tiers, seen = _distinct(ranking)
    rest = dict.fromkeys(place for place in ranking.unranked if place not in seen) if below else ()
    return TieredRanking(
        tuple(tuple(offset + place for place in tier) for tier in tiers),
        tuple(offset + place for place in rest),
        ranking.weight,
    )


def _distinct(ranking: JudgedRanking) -> tuple[list[tuple[int, ...]], set[int]]:
    """The tiers with every place once, and all places."""
    seen: set[int] = set()
    tiers = []
    for tier in ranking.tiers:
        new = tuple(dict.fromkeys(place for place in tier if place not in seen))
        seen.update(new)
        tiers += [new] if new else []
    return tiers, seen


def tie_facts(examples: Iterable[Example]) -> TieFacts:
    """What the training rankings say of ties, each ranking counting alike."""
    shares, largest = [], 1
    for example in examples:
        for ranking in example.rankings:
            placed = [len(tier) for tier in _distinct(ranking)[0]]
            pairs, tied = _pairs_among(sum(placed)), sum(map(_pairs_among, placed))
            shares += [tied / pairs] if pairs else []
            largest = max(largest, *placed, 1)
    return TieFacts(sum(shares) / len(shares) if shares else 0.0, largest)


def _pairs_among(count: int) -> int:
    return count * (count - 1) // 2
