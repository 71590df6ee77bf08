"""The flags about losses as one module: what they take from rankings, how parts add up, where thresholds begin."""

import math
import random

import pytest
import torch
from torch import Tensor

from training.core.errors import UsageError
from training.core.examples import Example, JudgedRanking
from training.core.objective import (
    Objective,
    ObjectiveSettings,
    TieFacts,
    gather_pairs,
    gather_rankings,
    tie_facts,
)

FACTS = TieFacts(tie_share=0.2, largest_tier=3)
EVERY = [
    ObjectiveSettings(),
    ObjectiveSettings(ties="soft", unranked="below"),
    ObjectiveSettings(ties="rao-kupper", strength="margin"),
    ObjectiveSettings(ties="davidson", centring=0.1),
    ObjectiveSettings(ties="rao-kupper", strength="ordinal"),
    ObjectiveSettings(ties="skip", strength="ordinal"),
    ObjectiveSettings(loss="plackett-luce"),
    ObjectiveSettings(loss="plackett-luce", ties="soft", unranked="below"),
    ObjectiveSettings(loss="plackett-luce", ties="davidson", unranked="below", centring=0.1),
]


def example(*rankings: JudgedRanking, responses: int = 4) -> Example:
    return Example(group=0, lengths=(1,) * responses, rankings=rankings)


def random_examples(count: int, seed: int = 0) -> list[Example]:
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        rankings = []
        for _ in range(draw.randint(1, 3)):
            places = draw.sample(range(5), draw.randint(2, 5))
            tiers: list[tuple[int, ...]] = []
            for place in places:
                if tiers and draw.random() < 0.3 and len(tiers[-1]) < 3:
                    tiers[-1] += (place,)
                else:
                    tiers.append((place,))
            rest = tuple(place for place in range(5) if place not in places)
            said = tuple(draw.choice([None, 1, 2, 3]) for _ in tiers[1:])
            rankings.append(JudgedRanking(tuple(tiers), rest, said, weight=draw.choice([0.5, 1.0, 2.0])))
        found.append(example(*rankings, responses=5))
    return found


def scores_for(examples: list[Example], seed: int = 1) -> Tensor:
    count = sum(len(each.lengths) for each in examples)
    drawn = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.requires_grad_()


@pytest.mark.parametrize("settings", EVERY, ids=str)
def test_parts_of_a_step_add_up(settings: ObjectiveSettings) -> None:
    """Loss and gradients of micro-batches (a process's share, a halved budget) are those of the whole step."""
    examples = random_examples(7)
    objective = Objective(settings, FACTS).double()
    scores = scores_for(examples)
    whole = objective(scores, examples, prompts=7)
    whole.backward()
    expected = [scores.grad.clone(), *(value.grad.clone() for value in objective.parameters())]  # type: ignore[union-attr]
    scores.grad = None
    objective.zero_grad()
    parts, begin = 0.0, 0
    for cut in (examples[:2], examples[2:3], examples[3:]):
        end = begin + sum(len(each.lengths) for each in cut)
        loss = objective(scores[begin:end], cut, prompts=7)
        loss.backward()
        parts, begin = parts + loss.item(), end
    assert parts == pytest.approx(whole.item(), rel=1e-9)
    assert all(value.grad is not None for value in objective.parameters())
    for found, before in zip([scores.grad, *(value.grad for value in objective.parameters())], expected, strict=True):
        assert torch.allclose(found, before, rtol=1e-6, atol=1e-9)
        assert before.abs().sum() > 0


@pytest.mark.parametrize("settings", EVERY, ids=str)
def test_two_who_say_the_same_count_as_one_and_weights_are_means(settings: ObjectiveSettings) -> None:
    one = JudgedRanking(((2,), (0, 1)), (3,), (2,))
    other = JudgedRanking(((0,), (1, 3)), (2,), (None,))
    objective = Objective(settings, FACTS).double()
    scores = scores_for([example(one)])

    def loss(*rankings: JudgedRanking) -> float:
        return float(objective(scores.detach(), [example(*rankings)], prompts=1))

    assert loss(one, one) == pytest.approx(loss(one))
    heavy = JudgedRanking(one.tiers, one.unranked, one.strengths, weight=3)
    assert loss(heavy, other) == pytest.approx(0.75 * loss(one) + 0.25 * loss(other))


def test_a_ranking_without_a_strict_pair_counts_where_ties_are_an_outcome() -> None:
    """Alone: nothing to learn for --ties skip; else −ln of what the model gives to a tie of four equal scores."""
    tied = example(JudgedRanking(((0, 1, 2, 3),)))
    scores = torch.zeros(4, dtype=torch.float64)

    def loss(**settings: str) -> float:
        return float(Objective(ObjectiveSettings(**settings), FACTS).double()(scores, [tied], prompts=1))  # type: ignore[arg-type]

    assert loss(ties="skip") == 0
    assert loss(ties="soft") == pytest.approx(math.log(2))
    # Both start where two equal scores tie as often as in the data.
    assert loss(ties="rao-kupper") == pytest.approx(-math.log(0.2), rel=1e-4)
    assert loss(ties="davidson") == pytest.approx(-math.log(0.2), rel=1e-4)
    assert loss(loss="plackett-luce", ties="soft") == pytest.approx((math.log(2) + math.log(3) + math.log(4)) / 3)


def test_margins_are_scaled_sums_over_the_gaps() -> None:
    ranking = JudgedRanking(((0,), (1,), (2,)), (3,), (2, None))
    settings = ObjectiveSettings(strength="margin", margin_scale=0.25, unranked="below")
    pairs = gather_pairs([example(ranking)], settings, device=torch.device("cpu"))
    found = {(a, b): m for a, b, m in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.margin.tolist(),
                                          strict=True)}  # fmt: skip
    assert found == {(0, 1): 0.5, (0, 2): 0.5, (1, 2): 0.0, (0, 3): 0.5, (1, 3): 0.0, (2, 3): 0.0}
    scores = torch.tensor([1.0, 0.2, 0.1, -3.0], dtype=torch.float64)
    loss = Objective(ObjectiveSettings(strength="margin", margin_scale=0.25), FACTS)(
        scores, [example(ranking)], prompts=1
    )

    def term(lead: float) -> float:
        return math.log1p(math.exp(-lead))

    assert float(loss) == pytest.approx((term(0.8 - 0.5) + term(0.9 - 0.5) + term(0.1)) / 3)


def test_centring_is_the_mean_over_prompts_of_the_squared_mean_score() -> None:
    examples = [example(JudgedRanking(((0,), (1,))), responses=2), example(JudgedRanking(((0,), (1,))), responses=3)]
    scores = torch.tensor([1.0, 3.0, 1.0, 1.0, 4.0], dtype=torch.float64)
    plain = Objective(ObjectiveSettings(), FACTS)(scores, examples, prompts=2)
    centred = Objective(ObjectiveSettings(centring=0.5), FACTS)(scores, examples, prompts=2)
    assert float(centred - plain) == pytest.approx(0.5 * (2**2 + 2**2) / 2)


def test_the_outcome_model_knows_no_margin_and_sums_to_one() -> None:
    difference = torch.linspace(-3, 3, 7, dtype=torch.float64).numpy()
    for settings in EVERY:
        model = Objective(settings, FACTS).outcome_model()
        assert (model is None) == (settings.ties in ("skip", "soft"))
        if model is not None:
            found = torch.from_numpy(model(difference)).exp()
            assert torch.allclose(found.sum(1), torch.ones(7, dtype=torch.float64))
            assert torch.allclose(found, found.flip(0).flip(1))
            assert found[3, 1] == pytest.approx(0.2, rel=1e-4)  # two equal scores tie as often as in the data


def test_the_share_of_ties_is_the_mean_over_rankings_and_the_largest_tier_is_found() -> None:
    facts = tie_facts([example(JudgedRanking(((0, 1), (2,))), JudgedRanking(((0,), (1,)))),
                       example(JudgedRanking(((0, 1, 2),), (3,)), JudgedRanking(((0,),)))])  # fmt: skip
    assert facts == TieFacts(tie_share=pytest.approx((1 / 3 + 0 + 1) / 3), largest_tier=3)
    assert tie_facts([]) == TieFacts(0.0, 1)


def test_a_tier_too_large_for_the_loss_is_refused_at_the_start() -> None:
    with pytest.raises(UsageError, match="ties 10 responses"):
        Objective(ObjectiveSettings(loss="plackett-luce", ties="soft"), TieFacts(0.1, 10))
    largest = Objective(ObjectiveSettings(loss="plackett-luce", ties="davidson"), TieFacts(0.1, 10)).double()
    everything = example(JudgedRanking((tuple(range(10)),)), responses=10)
    assert float(largest(torch.zeros(10, dtype=torch.float64), [everything], prompts=1)) > 0


def test_two_responses_of_one_text_say_nothing_of_each_other_in_whole_rankings() -> None:
    """As for pairs: a copy in the same tier is no tie, one further down counts where the best of them stands."""
    twice = JudgedRanking(((0, 0), (1,), (0, 2, 2)), unranked=(1, 3, 3))
    settings = ObjectiveSettings(loss="plackett-luce", ties="davidson", unranked="below")
    (found,) = gather_rankings([example(twice)], settings)
    assert (found.tiers, found.below) == (((0,), (1,), (2,)), (3,))
    assert tie_facts([example(JudgedRanking(((0, 0), (1,))))]) == TieFacts(0.0, 1)


@pytest.mark.parametrize("settings", EVERY, ids=str)
def test_the_held_out_loss_is_of_the_pairs_without_margins(settings: ObjectiveSettings) -> None:
    """Two prompts: a win over a lead of 0.8, said to be clear, and a tie of equal scores."""
    examples = [
        example(JudgedRanking(((0,), (1,)), strengths=(2,)), responses=2),
        example(JudgedRanking(((0, 1),)), responses=2),
    ]
    objective = Objective(settings, FACTS).double()
    found = objective.held_out_loss(examples, [[0.5, -0.3], [1.0, 1.0]])
    eta = math.log((1 + 0.2) / (1 - 0.2))

    def sigma(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    nu = 2 * 0.2 / (1 - 0.2)
    win = {
        "bradley-terry": sigma(0.8),
        "rao-kupper": sigma(0.8 - eta),
        "davidson": math.exp(0.4) / (math.exp(0.4) + nu + math.exp(-0.4)),
        "ordinal": sigma(0.8 - eta - 1) - sigma(0.8 - eta - 2),
    }[settings.pair_model]
    tie = {"skip": None, "soft": 0.5}.get(settings.ties, 0.2)
    terms = [-math.log(win), *([-math.log(tie)] if tie else [])]
    assert found == pytest.approx(sum(terms) / len(terms), rel=1e-4)
    assert objective.held_out_loss([example(JudgedRanking(((0,),)), responses=1)], [[0.0]]) is None
