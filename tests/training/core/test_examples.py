"""From rankings to weighted pairs: who is compared with whom, and what each pair weighs."""

from collections import Counter
from collections.abc import Sequence

import pytest

from training.core.examples import Example, build_examples
from training.core.records import Message, RankingRecord, Response

PROMPT = (Message("user", "Which?"),)


def ranking(texts: str, tiers: Sequence[Sequence[int]], *, weight: float = 1.0, group: str = "g") -> RankingRecord:
    return RankingRecord(
        line=1,
        split="train",
        split_group=group,
        prompt=PROMPT,
        responses=tuple(Response(text) for text in texts.split()),
        tiers=tuple(map(tuple, tiers)),
        weight=weight,
    )


def build(*records: RankingRecord, ties: str = "skip", longest: int = 100) -> tuple[list[Example], Counter[str]]:
    dropped: Counter[str] = Counter()
    examples = build_examples(
        records, ties=ties, show_thinking=False, fits=lambda _, response: len(response.text) <= longest, dropped=dropped
    )
    return examples, dropped


def by_texts(example: Example) -> dict[tuple[str, str, float], float]:
    texts = [response.text for response in example.responses]
    return {(texts[p.first], texts[p.second], p.outcome): p.weight for p in example.pairs}


def test_a_ranking_is_the_mean_over_its_pairs() -> None:
    (example,), _ = build(ranking("a b c", [[1], [0], [2]]))
    third = pytest.approx(1 / 3)
    assert by_texts(example) == {("b", "a", 1.0): third, ("b", "c", 1.0): third, ("a", "c", 1.0): third}


def test_a_ranking_of_nine_weighs_as_much_as_one_of_two() -> None:
    nine, _ = build(ranking("a b c d e f g h i", [[place] for place in range(9)]))
    two, _ = build(ranking("a b", [[0], [1]]))
    assert len(nine[0].pairs) == 36
    assert sum(pair.weight for pair in nine[0].pairs) == pytest.approx(1)
    assert sum(pair.weight for pair in two[0].pairs) == pytest.approx(1)


def test_several_rankings_share_responses_and_average_by_weight() -> None:
    (example,), _ = build(ranking("a b c", [[0], [1], [2]], weight=3), ranking("b a", [[0], [1]], weight=1))
    assert [response.text for response in example.responses] == ["a", "b", "c"]
    weights = by_texts(example)
    assert weights["a", "b", 1.0] == pytest.approx(3 / 4 / 3)
    assert weights["b", "a", 1.0] == pytest.approx(1 / 4)
    assert sum(weights.values()) == pytest.approx(1)


def test_equal_pairs_of_two_rankings_are_one_pair() -> None:
    (example,), _ = build(ranking("a b", [[0], [1]]), ranking("b a", [[1], [0]]))
    assert by_texts(example) == {("a", "b", 1.0): pytest.approx(1.0)}
    assert len(example.rankings) == 2


def test_ties_are_left_out_or_soft_and_unranked_gives_no_pair() -> None:
    tied = ranking("a b c d", [[0, 1], [2]])
    (example,), _ = build(tied)
    assert set(by_texts(example)) == {("a", "c", 1.0), ("b", "c", 1.0)}
    (example,), _ = build(tied, ties="soft")
    assert set(by_texts(example)) == {("a", "c", 1.0), ("b", "c", 1.0), ("a", "b", 0.5)}
    assert "d" not in [response.text for response in example.responses]


def test_rankings_without_a_pair_and_too_long_ones_are_counted() -> None:
    examples, dropped = build(
        ranking("a b", [[0, 1]]), ranking("same same", [[0], [1]]), ranking("a " + "x" * 101, [[0], [1]])
    )
    assert examples == []
    assert dropped == {"no_pairs": 2, "too_long": 1}


def test_a_long_response_that_is_unranked_drops_nothing() -> None:
    examples, dropped = build(ranking("a b " + "x" * 101, [[0], [1]]))
    assert len(examples) == 1
    assert not dropped


def test_one_prompt_in_two_split_groups_stays_two_examples() -> None:
    examples, _ = build(ranking("a b", [[0], [1]], group="g"), ranking("a b", [[0], [1]], group="h"))
    assert [example.split_group for example in examples] == ["g", "h"]
