"""From rankings to weighted pairs: who is compared with whom, and what each pair weighs."""

import pytest

from training.core.examples import JudgedRanking, Pair, pairs_of, strict_pairs, weighted_pairs


def shares(*rankings: JudgedRanking, ties: bool = False, below: bool = False) -> dict[tuple[int, int, float], float]:
    found = weighted_pairs(rankings, ties=ties, below=below)
    return {(pair.first, pair.second, pair.outcome): share for pair, share in found}


def test_a_ranking_is_the_mean_over_its_pairs() -> None:
    third = pytest.approx(1 / 3)
    assert shares(JudgedRanking(((1,), (0,), (2,)))) == {(1, 0, 1.0): third, (1, 2, 1.0): third, (0, 2, 1.0): third}


def test_a_ranking_of_nine_weighs_as_much_as_one_of_two() -> None:
    nine = shares(JudgedRanking(tuple((place,) for place in range(9))))
    assert len(nine) == 36
    assert sum(nine.values()) == pytest.approx(1)
    assert shares(JudgedRanking(((0,), (1,)))) == {(0, 1, 1.0): 1.0}


def test_several_rankings_average_by_weight() -> None:
    found = shares(JudgedRanking(((0,), (1,), (2,)), weight=3), JudgedRanking(((1,), (0,)), weight=1))
    assert found[0, 1, 1.0] == pytest.approx(3 / 4 / 3)
    assert found[1, 0, 1.0] == pytest.approx(1 / 4)
    assert sum(found.values()) == pytest.approx(1)


def test_equal_pairs_of_two_rankings_are_one_pair() -> None:
    assert shares(JudgedRanking(((0,), (1,))), JudgedRanking(((0,), (1,)))) == {(0, 1, 1.0): 1.0}


def test_a_ranking_without_a_pair_takes_no_share() -> None:
    assert shares(JudgedRanking(((0, 1),), weight=5), JudgedRanking(((1,), (0,)))) == {(1, 0, 1.0): 1.0}


def test_ties_are_left_out_or_taken_and_unranked_is_left_out_or_below() -> None:
    ranking = JudgedRanking(((0, 1), (2,)), unranked=(3, 4))
    assert set(shares(ranking)) == {(0, 2, 1.0), (1, 2, 1.0)}
    assert set(shares(ranking, ties=True)) == {(0, 2, 1.0), (1, 2, 1.0), (0, 1, 0.5)}
    below = {(place, other, 1.0) for place in (0, 1, 2) for other in (3, 4)}
    assert set(shares(ranking, below=True)) == {(0, 2, 1.0), (1, 2, 1.0), *below}
    assert set(shares(ranking, ties=True, below=True)) == {(0, 2, 1.0), (1, 2, 1.0), (0, 1, 0.5), *below}
    assert set(strict_pairs(ranking)) == {(0, 2), (1, 2)}


def test_two_responses_of_one_text_are_no_pair() -> None:
    assert pairs_of(JudgedRanking(((0, 0), (1,), (0,))), ties=True, below=False) == [
        Pair(0, 1, 1.0), Pair(0, 1, 1.0), Pair(1, 0, 1.0),
    ]  # fmt: skip


def test_strengths_belong_to_the_gap_and_add_up_over_several() -> None:
    ranking = JudgedRanking(((0,), (1,), (2,), (3,)), unranked=(4,), strengths=(2, None, 3))
    found = {(pair.first, pair.second): (pair.strength, pair.distance) for pair in
             pairs_of(ranking, ties=False, below=True)}  # fmt: skip
    assert found == {
        (0, 1): (2, 2), (0, 2): (0, 2), (0, 3): (0, 5), (0, 4): (0, 5),
        (1, 2): (0, 0), (1, 3): (0, 3), (1, 4): (0, 3),
        (2, 3): (3, 3), (2, 4): (0, 3), (3, 4): (0, 0),
    }  # fmt: skip
