import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.learning_data import (
    Judgement,
    draw_groups,
    make_folds,
    read_hh,
    read_pandalm,
    read_ukp,
    write_native,
)
from benchmarks.learning_figures import (
    constant_chances,
    davidson,
    fit_tie,
    fit_tie_and_factor,
    outcome_losses,
    over_groups,
    rao_kupper,
    right,
)
from training.core.records import read_rankings


def judged(group: str, winner: int | None = 0) -> Judgement:
    return Judgement(group, (("user", f"about {group}"),), ("one", "other"), winner)


# --- reading ----------------------------------------------------------------------------------------------------------


def test_arguments_of_both_sides_of_a_debate_are_one_group(tmp_path: Path) -> None:
    (tmp_path / "cats-or-dogs-_cats.csv").write_text('#id\tlabel\ta1\ta2\nx_y\ta2\tThey "purr\tSoft. <br/> Clean.\n')
    (tmp_path / "cats-or-dogs-_the-commond-dog.csv").write_text("#id\tlabel\ta1\ta2\nx_y\ta1\tloyal\tloud\n")
    cats, dogs = read_ukp(tmp_path)
    assert cats.group == dogs.group == "cats or dogs"
    assert (cats.responses, cats.winner) == (('They "purr', "Soft.\nClean."), 1)
    assert "Side: the common dog\n" in dogs.prompt[0][1]
    assert dogs.winner == 0


def test_three_votes_a_pair_with_ties_and_without_equal_texts(tmp_path: Path) -> None:
    votes = {"annotator1": 0, "annotator2": 1, "annotator3": 2}
    pair = {"instruction": "Is it so?", "input": "It is.", "response1": True, "response2": "No."} | votes
    path = tmp_path / "votes.json"
    path.write_text(json.dumps([pair, pair | {"response2": "True", "input": ""}]))
    found = read_pandalm(path)
    assert [(vote.annotator, vote.winner) for vote in found] == [
        ("annotator1", None),
        ("annotator2", 0),
        ("annotator3", 1),
    ]
    assert found[0].prompt == (("user", "Is it so?\n\nIt is."),)
    assert found[0].responses == ("True", "No.")


def test_the_place_of_the_chosen_dialogue_is_drawn(tmp_path: Path) -> None:
    start = "\n\nHuman: Hello\n\nin two parts\n\nAssistant: Yes?\n\nHuman: Well {}\n\nAssistant: "
    pairs = [{"text": [start.format(n) + "chosen", start.format(n) + "rejected"]} for n in range(40)]
    strangers = {"text": [start.format(1) + "chosen", start.format(2) + "rejected"]}
    path = tmp_path / "dialogues.json"
    path.write_text(json.dumps([*pairs, strangers]))
    found = read_hh(path)
    assert len(found) == 40
    assert all(each.responses[each.winner] == "chosen" for each in found)
    assert {each.winner for each in found} == {0, 1}
    turns = (("user", "Hello\n\nin two parts"), ("assistant", "Yes?"), ("user", "Well 7"))
    assert found[7].prompt == turns


def test_native_lines_are_what_training_reads(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    write_native(path, {"train": [judged("g", 1), judged("g", None)], "test": [judged("h", 0)]})
    snapshot = read_rankings(path)
    records = list(snapshot.rankings())
    assert [record.split for record in records] == ["train", "train", "test"]
    placed = [[sorted(record.responses[place].text for place in tier) for tier in record.tiers] for record in records]
    assert placed == [[["other"], ["one"]], [["one", "other"]], [["one"], ["other"]]]
    assert not snapshot.dropped


# --- splits -----------------------------------------------------------------------------------------------------------


def test_folds_hold_every_group_once_and_about_as_many_judgements() -> None:
    judgements = [judged(f"group {size}") for size in range(1, 12) for _ in range(size)]
    folds = make_folds(judgements)
    assert sorted(group for fold in folds for group in fold) == sorted({each.group for each in judgements})
    sizes = [sum(each.group in fold for each in judgements) for fold in folds]
    assert max(sizes) - min(sizes) <= 3


def test_drawn_groups_are_whole_and_no_more_than_needed() -> None:
    judgements = [judged(f"group {number % 10}") for number in range(50)]
    drawn = draw_groups(judgements, at_least=11, seed=3)
    assert len(drawn) == 3
    assert drawn == draw_groups(judgements[::-1], at_least=11, seed=3)


# --- figures ----------------------------------------------------------------------------------------------------------


def test_right_counts_equal_scores_as_half() -> None:
    assert right(np.array([2.0, 0.0, -1.0])).tolist() == [1.0, 0.5, 0.0]


def test_intervals_draw_whole_groups() -> None:
    column = np.array([1.0, 1.0, 0.0, 0.0])
    (within,) = over_groups([column], ["a", "b", "a", "b"])
    (between,) = over_groups([column], ["a", "a", "b", "b"])
    assert (within.value, within.low, within.high) == (0.5, 0.5, 0.5)
    assert (between.value, between.low, between.high) == (0.5, 0.0, 1.0)


def test_three_outcomes_sum_to_one_and_are_symmetric() -> None:
    difference = np.array([-30.0, -1.0, 0.0, 2.5])
    for chances in (rao_kupper(difference, -0.4), davidson(difference, -0.4)):
        np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(rao_kupper(difference, -0.4)[:, ::-1], rao_kupper(-difference, -0.4), atol=1e-12)
    # e^{1/2} : ν : e^{−1/2} with ν = 2
    np.testing.assert_allclose(davidson(np.array([1.0]), math.log(2))[0, 1], 2 / (2 + 2 * math.cosh(0.5)), atol=1e-12)


def test_a_threshold_is_fitted_to_the_share_of_ties() -> None:
    # At Δ = 0 the chance of a tie is tanh(η / 2).
    winner = [None] * 3 + [0] * 4 + [1] * 3
    log_threshold = fit_tie(rao_kupper, np.zeros(10), winner)
    assert math.exp(log_threshold) == pytest.approx(2 * math.atanh(0.3), rel=2e-3)
    for curve in (rao_kupper, davidson):
        chances = curve(np.zeros(10), fit_tie(curve, np.zeros(10), winner))
        np.testing.assert_allclose(chances, constant_chances(winner, rows=10), atol=1e-3)


def test_threshold_and_factor_are_found_again() -> None:
    difference = np.repeat([-200.0, -50.0, 50.0, 200.0], 100)
    shares = np.round(rao_kupper(difference[::100] * 0.01, math.log(0.5)) * 100).astype(int)
    shares[:, 1] = 100 - shares[:, 0] - shares[:, 2]
    winner = [side for row in shares for side, count in zip((0, None, 1), row, strict=True) for _ in range(count)]
    log_threshold, factor = fit_tie_and_factor(rao_kupper, difference, winner)
    assert math.exp(log_threshold) == pytest.approx(0.5, rel=0.03)
    assert factor == pytest.approx(0.01, rel=0.03)


def test_the_loss_of_an_outcome() -> None:
    chances = np.array([[0.5, 0.3, 0.2]] * 3)
    np.testing.assert_allclose(outcome_losses(chances, [0, None, 1]), -np.log([0.5, 0.3, 0.2]))
