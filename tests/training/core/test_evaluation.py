"""Held-out figures against closed forms, and against plain loops over small random splits."""

import json
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from tests.training.core.judged import example, partial, random_split, ranking
from training.core.bootstrap import Floats
from training.core.evaluation import evaluate, mean_ranks
from training.core.examples import pairs_of
from training.core.judgements import all_pairs, correctness, pair_table, read_judgements


def test_accuracy_counts_pairs_and_gives_equal_scores_one_half() -> None:
    data = [example([2, 1, 3], [[0], [1], [2]]), example([1, 2], [[1], [0]], group=1)]
    section = evaluate(data, [[3.0, 1.0, 1.0], [0.0, -1.0]], seed=0)
    # right: 0>1, 0>2; equal: 1=2; wrong: the pair of the second prompt
    assert section["accuracy"]["value"] == pytest.approx(2.5 / 4)
    assert (section["accuracy"]["pairs"], section["accuracy"]["prompts"], section["groups"]) == (4, 2, 2)
    # longer wins: 0>1 yes, 0>2 no, 1>2 no, second prompt yes
    assert section["length_baseline"]["value"] == pytest.approx(2 / 4)
    assert section["against_length"]["value"] == pytest.approx(0.5 / 4)
    assert section["against_shorter"]["value"] == pytest.approx(0.5 / 4)


def test_the_difference_to_the_length_rule_is_paired() -> None:
    """Two rules that are right on the same pairs differ by exactly nothing, however wide either interval is."""
    data = [example([1 + number % 2, 1 + (number + 1) % 2], [[0], [1]], group=number) for number in range(30)]
    section = evaluate(data, [[float(one.lengths[0]), float(one.lengths[1])] for one in data], seed=0)
    assert section["accuracy"]["high"] - section["accuracy"]["low"] > 0.2
    assert (section["against_length"]["low"], section["against_length"]["high"]) == (0.0, 0.0)


def test_without_pairs_every_figure_is_none() -> None:
    for data in ([], [example([1, 1], [[0, 1]])]):
        section = evaluate(
            data, [[1.0, 2.0]] * len(data), seed=0, outcome_log_probabilities=lambda d: np.zeros((len(d), 3))
        )
        assert section["accuracy"] == {"value": None, "low": None, "high": None, "pairs": 0, "prompts": 0}
        assert section["log_loss"] is section["ece"] is section["temperature"] is section["kendall_tau_b"] is None
        assert section["calibration"] == []
        assert section["against_length"]["value"] is section["overconfidence"]["value"] is None
        assert all(parts == [] for parts in section["accuracy_by"].values())


def test_a_report_is_json_and_the_same_for_the_same_seed() -> None:
    data, scores = random_split(12)
    first, second = (evaluate(data, scores, seed=7, known_annotators={1, 2}) for _ in range(2))
    assert json.dumps(first, allow_nan=False) == json.dumps(second)
    assert first["outcomes"] is None


def test_scores_must_be_those_of_the_responses() -> None:
    with pytest.raises(ValueError, match="prompt 0 has 2 responses and 1 scores"):
        evaluate([example([1, 2], [[0], [1]])], [[1.0]], seed=0)


# --- pairs -----------------------------------------------------------------------------------------------------------


def test_margins_are_winner_minus_loser() -> None:
    table = pair_table([example([1, 3], [[1], [0]])], [[0.25, 1.0]])
    assert table.margin.tolist() == [0.75]
    assert table.length_margin.tolist() == [2]
    assert correctness(np.array([2.0, 0.0, -1.0])).tolist() == [1.0, 0.5, 0.0]


def test_pairs_come_ranking_by_ranking_and_two_places_of_one_text_are_none() -> None:
    data = [example([1, 2, 3], [[0], [1, 2]], [[2], [1]]), example([1, 2], [[0, 1], [0]])]
    pairs = all_pairs(read_judgements(data, [[0.0, 1.0, 2.0], [5.0, 6.0]]))
    assert list(zip(pairs.ranking.tolist(), pairs.first.tolist(), pairs.second.tolist(), strict=True)) == [
        (0, 0, 1),
        (0, 0, 2),
        (0, 1, 2),
        (1, 2, 1),
        (2, 3, 4),
        (2, 4, 3),
    ]
    assert pairs.strict.tolist() == [True, True, False, True, False, True]


# --- unranked responses below ---------------------------------------------------------------------------------------


def test_the_pairs_are_those_that_are_learned_from() -> None:
    data, scores = random_split(60, seed=11)
    # two of one text: placed and unranked, both unranked, both placed
    data[0] = example(data[0].lengths, ranking([[0], [1]], unranked=[1]), ranking([[0]], unranked=[1, 1]))
    data[1] = example(data[1].lengths, ranking([[0], [0, 1]]), ranking([], unranked=[0, 1]))
    data[2:] = partial(data[2:], seed=4)
    for below in (False, True):
        pairs = all_pairs(read_judgements(data, scores, below=below))
        found = Counter(
            zip(*map(np.ndarray.tolist, (pairs.ranking, pairs.first, pairs.second, pairs.strict)), strict=True)
        )
        expected: Counter[tuple[int, int, int, bool]] = Counter()
        number = begin = 0
        for one in data:
            for judged in one.rankings:
                for pair in pairs_of(judged, ties=True, below=below):
                    expected[number, begin + pair.first, begin + pair.second, pair.outcome == 1] += 1
                number += 1
            begin += len(one.lengths)
        assert found == expected
        strict = pair_table(data, scores, below=below)
        learned = [
            pair for one in data for judged in one.rankings for pair in pairs_of(judged, ties=False, below=below)
        ]
        assert len(strict) == len(learned) > 100
        # what is said of a gap is the same, where it is said of neighbours
        assert sorted(np.maximum(strict.strength, 0).tolist()) == sorted(pair.strength for pair in learned)


def test_rankings_of_the_best_alone_have_no_pairs_unless_the_others_are_below() -> None:
    """One of four is placed: three pairs, and none among the three; the scores have it second."""
    data = [example([4, 3, 2, 1], ranking([[0]], unranked=[1, 2, 3]), group=number) for number in range(3)]
    scores = [[2.0, 3.0, 1.0, 0.0]] * 3
    assert evaluate(data, scores, seed=0)["accuracy"]["pairs"] == 0
    section = evaluate(data, scores, seed=0, below=True)
    assert section["accuracy"]["value"] == pytest.approx(2 / 3)
    assert (section["accuracy"]["pairs"], section["length_baseline"]["value"], section["groups"]) == (9, 1.0, 3)
    assert section["log_loss"] == pytest.approx(sum(math.log1p(math.exp(-m)) for m in (-1, 1, 2)) / 3)
    # 2 of the 3 pairs agree, and nobody tied the others
    assert section["kendall_tau_b"] == pytest.approx(1 / 3)
    assert sum(one["pairs"] for one in section["calibration"]) == 9
    ((placed,), (strength,)) = (section["accuracy_by"][name] for name in ("placed", "strength"))
    assert (placed["of"], placed["pairs"], strength["of"]) == (1, 9, "not_said")


def test_how_far_the_unranked_are_below_is_not_said_and_tiers_between_stand_apart() -> None:
    one = example([1, 1, 1, 1], ranking([[0], [1]], strengths=[3], unranked=[2, 3]))
    strength = evaluate([one], [[1.0, 2.0, 3.0, 4.0]], seed=0, below=True)["accuracy_by"]["strength"]
    assert [(part["of"], part["pairs"]) for part in strength] == [(3, 1), ("not_said", 2), ("not_adjacent", 2)]


def test_wins_over_the_unranked_are_no_ties() -> None:
    one = example([1, 1, 1, 1], ranking([[0, 1]], unranked=[2, 3]))
    chances = np.log([0.5, 0.3, 0.2])
    section = evaluate(
        [one], [[0.0] * 4], seed=0, below=True, outcome_log_probabilities=lambda d: np.tile(chances, (len(d), 1))
    )
    assert section["outcomes"]["pairs"] == 5
    assert section["outcomes"]["ties"]["value"] == pytest.approx(1 / 5)
    assert section["outcomes"]["log_loss"]["value"] == pytest.approx(-(4 * math.log(0.5) + math.log(0.3)) / 5)


# --- rank agreement --------------------------------------------------------------------------------------------------


def tau_b(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's τ-b by its definition, pair by pair."""
    together, spread_first, spread_second = 0.0, 0.0, 0.0
    for i in range(len(first)):
        for j in range(i):
            a, b = np.sign(first[i] - first[j]), np.sign(second[i] - second[j])
            together, spread_first, spread_second = together + a * b, spread_first + a * a, spread_second + b * b
    scale = math.sqrt(spread_first * spread_second)
    return together / scale if scale else None


def test_tau_b_by_hand() -> None:
    for order, expected in ([[0, 1, 2], 1.0], [[2, 1, 0], -1.0]):
        section = evaluate([example([1, 1, 1], [[place] for place in order])], [[3.0, 2.0, 1.0]], seed=0)
        assert section["kendall_tau_b"] == pytest.approx(expected)
    # three pairs agree, one does not, and one is tied on either side: scores 1 2 2 3, people 1 3 2 2
    section = evaluate([example([1] * 4, [[1], [2, 3], [0]])], [[1.0, 2.0, 2.0, 3.0]], seed=0)
    assert section["kendall_tau_b"] == pytest.approx((3 - 1) / math.sqrt(5 * 5))
    assert evaluate([example([1, 1], [[0], [1]])], [[1.0, 1.0]], seed=0)["kendall_tau_b"] is None


def test_tau_b_is_the_mean_of_its_definition() -> None:
    data, scores = random_split(25, seed=6)
    found = []
    for one, row in zip(data, scores, strict=True):
        for judged in one.rankings:
            placed = [(row[place], -tier) for tier, places in enumerate(judged.tiers) for place in places]
            tau = tau_b([score for score, _ in placed], [tier for _, tier in placed])
            found += [tau] if tau is not None else []
    section = evaluate(data, scores, seed=0)
    assert section["kendall_tau_b"] == pytest.approx(sum(found) / len(found))
    assert section["kendall_tau_b_interval"]["rankings"] == len(found)
    assert (
        section["kendall_tau_b_interval"]["low"] < section["kendall_tau_b"] < section["kendall_tau_b_interval"]["high"]
    )


# --- score and length ------------------------------------------------------------------------------------------------


def test_the_correlation_with_length_is_taken_within_prompts() -> None:
    """Between prompts score and length go together, within them they oppose: −1, where pooling would say about +1."""
    data = [example([1, 2, 3], [[0], [1]]), example([101, 102, 103], [[0], [1]], group=1)]
    found = evaluate(data, [[3.0, 2.0, 1.0], [93.0, 92.0, 91.0]], seed=0)["score_length"]
    assert (found["pearson"]["value"], found["spearman"]["value"]) == (pytest.approx(-1), pytest.approx(-1))
    assert (found["responses"], found["prompts"]) == (6, 2)


def test_spearman_is_pearson_of_ranks_and_does_not_see_size() -> None:
    lengths, scores = [1, 10, 100, 1000, 5], [0.1, 0.2, 0.5, 0.4, 0.2]
    found = evaluate([example(lengths, [[0], [1]])], [scores], seed=0)["score_length"]
    # ranks 1 3 4 5 2 and 1 2.5 5 4 2.5
    assert found["spearman"]["value"] == pytest.approx(np.corrcoef([1, 3, 4, 5, 2], [1, 2.5, 5, 4, 2.5])[0, 1])
    assert found["pearson"]["value"] == pytest.approx(np.corrcoef(lengths, scores)[0, 1])


def test_equal_values_share_the_mean_of_their_ranks_within_their_part() -> None:
    ranks = mean_ranks(np.array([5.0, 1.0, 5.0, 5.0, 7.0]), np.array([0, 0, 0, 1, 1]))
    assert (ranks[:3] - ranks[1]).tolist() == [1.5, 0.0, 1.5]
    assert ranks[4] - ranks[3] == 1.0


# --- ties ------------------------------------------------------------------------------------------------------------


def davidson(margin: Floats, nu: float) -> Floats:
    logits = np.stack([margin / 2, np.full(len(margin), math.log(nu)), -margin / 2], axis=1)
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


def test_three_way_log_loss_over_strict_and_tied_pairs() -> None:
    data = [example([1, 1, 1], [[0], [1, 2]]), example([1, 1], [[1], [0]], group=1)]
    section = evaluate(
        data, [[1.0, 0.0, 0.5], [2.0, 0.0]], seed=0, outcome_log_probabilities=lambda margin: davidson(margin, 0.7)
    )
    found = section["outcomes"]
    logs = davidson(np.array([1.0, 0.5, -0.5, -2.0]), 0.7)
    expected = -(logs[0, 0] + logs[1, 0] + logs[2, 1] + logs[3, 0]) / 4
    assert found["log_loss"]["value"] == pytest.approx(expected)
    assert (found["ties"]["value"], found["pairs"]) == (0.25, 4)
    assert found["predicted_ties"]["value"] == pytest.approx(np.exp(logs[:, 1]).mean())
    constant = -(math.log(0.25) + 3 * math.log(0.375)) / 4
    assert found["constant_log_loss"]["value"] == pytest.approx(constant)
    assert found["against_constant"]["value"] == pytest.approx(expected - constant)


def rao_kupper(margin: Floats, eta: float) -> Floats:
    def log_sigmoid(x: Floats) -> Floats:
        return np.asarray(-np.logaddexp(0, -x))

    tie = np.log(np.expm1(2 * eta)) + log_sigmoid(margin - eta) + log_sigmoid(-margin - eta)
    return np.stack([log_sigmoid(margin - eta), tie, log_sigmoid(-margin - eta)], axis=1)


def test_calibration_of_a_tie_model_is_of_the_chance_to_win_given_no_tie() -> None:
    data = [example([1, 1], [[0], [1]], group=number) for number in range(4)]
    scores = [[1.0, 0.0]] * 3 + [[0.0, 1.0]]
    log3 = math.log(3)
    given = evaluate(data, scores, seed=0, outcome_log_probabilities=lambda margin: rao_kupper(margin, 0.5))
    win, lose = 1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(1.5))
    odds = math.log(win / lose)
    assert given["log_loss"] == pytest.approx((3 * math.log1p(math.exp(-odds)) + math.log1p(math.exp(odds))) / 4)
    assert given["temperature"] == pytest.approx(odds / log3)
    assert given["calibration"][0]["confidence"] == pytest.approx(win / (win + lose))
    # under Davidson it is σ of the difference
    plain = evaluate(data, scores, seed=0)
    tied = evaluate(data, scores, seed=0, outcome_log_probabilities=lambda margin: davidson(margin, 0.7))
    assert tied["log_loss"] == pytest.approx(plain["log_loss"])
    assert tied["accuracy"] == plain["accuracy"] == given["accuracy"]


@pytest.mark.parametrize(("tiers", "constant"), [([[0], [1]], math.log(2)), ([[0, 1]], 0.0)])
def test_the_constant_chances_of_a_split_of_one_kind(tiers: list[list[int]], constant: float) -> None:
    section = evaluate(
        [example([1, 2], tiers)], [[0.0, 1.0]], seed=0, outcome_log_probabilities=lambda m: davidson(m, 1)
    )
    assert section["outcomes"]["constant_log_loss"]["value"] == pytest.approx(constant)
