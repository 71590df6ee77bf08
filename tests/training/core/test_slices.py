"""Accuracy by parts of the pairs, by hand."""

from typing import Any

import pytest

from tests.training.core.judged import example, random_split, ranking
from training.core.evaluation import evaluate
from training.core.examples import Example


def parts(data: list[Example], scores: list[list[float]], **known: Any) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = evaluate(data, scores, seed=0, **known)["accuracy_by"]
    return found


def figures(found: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(one[name] for name in names) for one in found]


def test_by_number_placed_and_strength() -> None:
    """Three tiers, strengths 3 and not said: right on 0 > 1 and 0 > 2, wrong on 1 > 2. Two tiers, slightly: wrong."""
    data = [
        example([3, 2, 1], ranking([[0], [1], [2]], strengths=[3, None]), group=0),
        example([5, 5], ranking([[1], [0]], strengths=[1]), group=1),
    ]
    found = parts(data, [[3.0, 1.0, 2.0], [1.0, 0.0]])
    assert figures(found["placed"], "of", "value", "pairs", "prompts") == [
        (2, 0.0, 1, 1),
        (3, pytest.approx(2 / 3), 3, 1),
    ]
    assert figures(found["strength"], "of", "value", "pairs") == [
        (1, 0.0, 1),
        (3, 1.0, 1),
        ("not_said", 0.0, 1),
        ("not_adjacent", 1.0, 1),
    ]
    assert [one["length_baseline"]["value"] for one in found["strength"]] == [0.5, 1.0, 1.0, 1.0]
    assert [one["against_length"]["value"] for one in found["strength"]] == [-0.5, 0.0, -1.0, 0.0]


def test_a_tier_of_two_keeps_the_strength_of_the_gap_below_it() -> None:
    data = [
        example([1, 1, 1], ranking([[0], [1, 2]], strengths=[2])),
        example([1, 1, 1], ranking([[1, 2], [0]], strengths=[3])),
    ]
    found = parts(data, [[0.0] * 3, [0.0] * 3])
    assert figures(found["strength"], "of", "pairs") == [(2, 2), (3, 2)]


def test_by_who_judged_and_whether_training_saw_them() -> None:
    right, wrong = [[1], [0]], [[0], [1]]
    data = [
        example(
            [1, 2],
            ranking(right, by=0),
            ranking(wrong, by=1),
            ranking(wrong, by=1),
            ranking(right, by=2, machine=True),
            ranking(right),
        )
    ]
    found = parts(data, [[0.0, 1.0]], known_annotators=[-1, 0, 2], annotators=["ann", "bob", "robot"])
    assert figures(found["annotators"], "kind", "seen", "value", "pairs") == [
        ("human", True, 1.0, 1),
        ("human", False, 0.0, 2),
        ("human", None, 1.0, 1),
        ("machine", True, 1.0, 1),
    ]
    assert figures(found["annotator"], "name", "kind", "seen", "value", "pairs") == [
        ("bob", "human", False, 0.0, 2),
        ("ann", "human", True, 1.0, 1),
        ("robot", "machine", True, 1.0, 1),
    ]
    unknown = parts(data, [[0.0, 1.0]])
    assert figures(unknown["annotators"], "kind", "seen") == [("human", None), ("machine", None)]
    assert figures(unknown["annotator"], "name", "seen") == [("1", None), ("0", None), ("2", None)]


def test_only_the_twenty_annotators_with_the_most_pairs_are_listed() -> None:
    data = [example([1, 2], *[ranking([[0], [1]], by=by) for by in range(25) for _ in range(by + 1)])]
    listed = parts(data, [[0.0, 1.0]])["annotator"]
    assert [one["name"] for one in listed] == [str(by) for by in range(24, 4, -1)]


def test_by_quarter_of_the_length_difference() -> None:
    data = [example([0, size], [[1], [0]], group=size) for size in (-4, 1, 2, 3, 40, 50, 60, 70)]
    found = parts(data, [[0.0, 1.0 if size < 50 else -1.0] for size in (-4, 1, 2, 3, 40, 50, 60, 70)])
    # by |difference|: 1 2 | 3 4 | 40 50 | 60 70
    assert figures(found["length_difference"], "quarter", "from", "to", "pairs", "value") == [
        (1, 1, 2, 2, 1.0),
        (2, 3, 4, 2, 1.0),
        (3, 40, 50, 2, 0.5),
        (4, 60, 70, 2, 0.0),
    ]
    assert [one["length_baseline"]["value"] for one in found["length_difference"]] == [1.0, 0.5, 1.0, 1.0]


def test_equal_length_differences_stay_together_below_the_cut() -> None:
    sizes = (1, 1, 1, 5, 6, 7, 8, 9)
    data = [example([0, size], [[1], [0]], group=number) for number, size in enumerate(sizes)]
    found = parts(data, [[0.0, 1.0]] * 8)
    assert figures(found["length_difference"], "quarter", "from", "to", "pairs") == [
        (1, 1, 1, 3),
        (2, 5, 5, 1),
        (3, 6, 7, 2),
        (4, 8, 9, 2),
    ]


def test_every_way_to_part_them_holds_each_pair_once() -> None:
    data, scores = random_split(60, seed=4)
    section = evaluate(data, scores, seed=0, known_annotators=[0, 1, 2])
    whole = section["accuracy"]
    for name, found in section["accuracy_by"].items():
        assert sum(one["pairs"] for one in found) == whole["pairs"], name
        assert sum(one["pairs"] * one["value"] for one in found) == pytest.approx(whole["pairs"] * whole["value"])
