"""The human ceiling by hand, and against every draw of a referee and a second person, made in the open."""

import itertools
from typing import Any

import pytest

from tests.training.core.judged import example, random_split, ranking
from training.core.agreement import NO_OVERLAP, NO_PAIRS, NO_TASKS, human_ceiling
from training.core.bootstrap import with_intervals
from training.core.examples import Example
from training.core.judgements import all_pairs, read_judgements


def ceiling(data: list[Example], scores: list[list[float]]) -> dict[str, Any]:
    judgements = read_judgements(data, scores)
    found: dict[str, Any] = with_intervals(human_ceiling(judgements, all_pairs(judgements)), seed=0)
    return found


def test_a_task_of_three_people_by_hand() -> None:
    """Two people say 0 > 1 > 2, the third 1 > 0 = 2; the scores say 0 > 2 > 1, the lengths 0 > 1 > 2.

    (0, 1): of the 6 draws of a referee and a second person 2 agree. (0, 2): the referee is one of the two, the second
    person the other (1) or the one who ties (½). (1, 2): all agree.
    """
    alike = [[0], [1], [2]]
    people = [ranking(alike, by=0, task=0), ranking(alike, by=1, task=0), ranking([[1], [2, 0]], by=2, task=0)]
    found = ceiling([example([9, 5, 1], *people)], [[3.0, 1.0, 2.0]])
    assert found["two_annotators"]["value"] == pytest.approx((1 / 3 + 3 / 4 + 1) / 3)
    assert found["model"]["value"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found["length"]["value"] == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert found["difference"]["value"] == pytest.approx((2 / 3 + 1 - 1 / 3 - 3 / 4 - 1) / 3)
    assert (found["pairs"], found["prompts"], found["tasks"], found["reason"]) == (3, 1, 1, None)


def by_every_draw(data: list[Example], scores: list[list[float]]) -> tuple[float, float]:
    """The same from the definition: all referees and second persons of every task's pair, one after another."""
    between, model = [], []
    for one, row in zip(data, scores, strict=True):
        for task in {judged.task for judged in one.rankings}:
            people = [judged for judged in one.rankings if judged.task == task and not judged.machine]
            for first, second in itertools.combinations(range(len(one.lengths)), 2):
                of_people = [order for judged in people if (order := order_of(judged.tiers, first, second)) is not None]
                draws = [
                    (referee, other)
                    for referee, other in itertools.permutations(of_people, 2)
                    if referee != 0  # who ties is no referee
                ]
                if draws:
                    by_score = (row[first] > row[second]) - (row[first] < row[second])
                    between.append(sum(points(*draw) for draw in draws) / len(draws))
                    model.append(sum(points(referee, by_score) for referee, _ in draws) / len(draws))
    return sum(between) / len(between), sum(model) / len(model)


def order_of(tiers: tuple[tuple[int, ...], ...], first: int, second: int) -> int | None:
    places = {place: number for number, tier in enumerate(tiers) for place in tier}
    if first not in places or second not in places:
        return None
    return (places[first] < places[second]) - (places[first] > places[second])


def points(referee: int, other: int) -> float:
    return 0.5 if other == 0 else float(referee == other)


def test_it_is_the_mean_over_every_draw_of_two_people() -> None:
    data, scores = random_split(40, seed=3)
    third = [
        example(one.lengths, *one.rankings, ranking([[1], [0]], by=11, task=one.rankings[0].task), group=one.group)
        for one in data
    ]
    found = ceiling(third, scores)
    between, model = by_every_draw(third, scores)
    assert found["two_annotators"]["value"] == pytest.approx(between)
    assert found["model"]["value"] == pytest.approx(model)
    assert found["two_annotators"]["low"] < between < found["two_annotators"]["high"]
    assert found["difference"]["value"] == pytest.approx(model - between)
    # paired: not the difference of the ends
    width = found["difference"]["high"] - found["difference"]["low"]
    assert 0 < width < (found["model"]["high"] - found["two_annotators"]["low"]) * 2


def test_with_unranked_ones_below_only_who_compared_two_responses_takes_part() -> None:
    """Two people have 0 alone at the top, the third 1: of (0, 1) two draws of six agree, of (0, 2) both of the two.

    The third says nothing of (0, 2), and alone of (1, 2). The scores say 1 > 0 > 2.
    """
    people = [
        ranking([[best]], by=by, task=0, unranked=sorted({0, 1, 2} - {best})) for by, best in enumerate((0, 0, 1))
    ]
    data, scores = [example([3, 2, 1], *people)], [[1.0, 2.0, 0.0]]
    assert ceiling(data, scores)["reason"] == NO_PAIRS
    judgements = read_judgements(data, scores, below=True)
    found = with_intervals(human_ceiling(judgements, all_pairs(judgements)), seed=0)
    assert found["pairs"] == 2
    assert found["two_annotators"]["value"] == pytest.approx((1 / 3 + 1) / 2)
    assert found["model"]["value"] == pytest.approx((1 / 3 + 1) / 2)
    assert found["length"]["value"] == pytest.approx((2 / 3 + 1) / 2)


def test_of_a_person_who_ranked_a_task_twice_the_last_counts_and_machines_do_not() -> None:
    data = [
        example(
            [1, 1],
            ranking([[0], [1]], by=0, task=4),
            ranking([[1], [0]], by=0, task=4),
            ranking([[1], [0]], by=1, task=4),
            ranking([[0], [1]], by=2, task=4, machine=True),
        )
    ]
    found = ceiling(data, [[0.0, 1.0]])
    assert (found["two_annotators"]["value"], found["model"]["value"]) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("rankings", "reason"),
    [
        ([ranking([[0], [1]], by=0), ranking([[0], [1]], by=1)], NO_TASKS),
        ([ranking([[0], [1]], by=0, task=0), ranking([[0], [1]], by=1, task=1)], NO_OVERLAP),
        ([ranking([[0], [1]], by=0, task=0), ranking([[0], [1]], by=1, task=0, machine=True)], NO_OVERLAP),
        ([ranking([[0], [1]], by=0, task=0), ranking([[1], [2]], by=1, task=0)], NO_PAIRS),
        ([ranking([[0, 1]], by=0, task=0), ranking([[1, 0]], by=1, task=0)], NO_PAIRS),
    ],
)
def test_without_a_pair_that_two_people_judged_it_says_why(rankings: list[Any], reason: str) -> None:
    found = ceiling([example([1, 2, 3], *rankings)], [[1.0, 2.0, 3.0]])
    assert found["reason"] == reason
    assert found["two_annotators"] is found["model"] is found["difference"] is None
    assert found["pairs"] == 0
