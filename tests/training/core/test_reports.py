"""The warnings: each where it belongs, none where it does not; and the card's figures."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import nn

from tests.training.core.judged import example
from training.core.evaluation import evaluate
from training.core.licences import Licence
from training.core.reports import reward_model_card, warnings_about
from training.core.saving import MEAN_KEY, SCALE_KEY, THRESHOLDS_KEY, ScoreScale, fold_scale

Split = tuple[list[Any], list[list[float]]]


def pairs(
    count: int, *, right: float, longer: float, size: float = 1.0, by_length: bool = False, seed: int = 0
) -> Split:
    """``count`` prompts of one pair each, a group each: shares that the model and the length rule get right."""
    generator = np.random.default_rng(seed)
    data, scores = [], []
    for number in range(count):
        is_longer = generator.random() < longer
        lengths = [20, 10] if is_longer else [10, 20]
        is_right = is_longer if by_length else generator.random() < right
        data.append(example(lengths, [[0], [1]], group=number))
        scores.append([size, 0.0] if is_right else [0.0, size])
    return data, scores


def warned(split: Split, **known: Any) -> list[str]:
    section = evaluate(*split, seed=0, **known)
    return warnings_about({"validation": section}, defused_texts=0, skipped_steps=0, not_packed=None)


def test_a_good_model_on_many_prompts_is_left_in_peace() -> None:
    assert warned(pairs(2000, right=0.75, longer=0.55)) == []


def test_few_prompts_say_how_many_more_would_do() -> None:
    split = pairs(100, right=0.85, longer=0.5, size=1.7)
    (warning,) = warned(split)
    right = sum(row[0] > row[1] for row in split[1]) / 100
    # The width falls as 1/√prompts, from ±1.96 √(p (1 − p) / 100).
    half = 1.96 * (right * (1 - right) / 100) ** 0.5
    assert f"±{half * 100:.0f} points" in warning
    more = int(warning.split("about ")[1].split(" more")[0])
    assert more == pytest.approx(100 * ((half / 0.05) ** 2 - 1), rel=0.25)
    assert "split groups" not in warning
    (few,) = [one for one in warned(pairs(25, right=1.0, longer=0.3)) if "split groups" in one]
    assert "25 split groups" in few


def test_chance_is_named_once() -> None:
    found = warned(pairs(60, right=0.5, longer=0.2))
    assert sum("includes chance" in warning for warning in found) == 1
    assert not any("temperature" in warning for warning in found)


def test_a_model_that_follows_length_has_learned_length() -> None:
    (warning,) = warned(pairs(1500, right=0.7, longer=0.7, by_length=True))
    assert warning.startswith("The model has learned length: its scores follow it (rank correlation 1.00")
    assert "not shown to be better than choosing the longer response (difference +0.0 points" in warning


def random_scores(prompts: int, *, seed: int, count: int = 4, by: str = "nothing") -> Split:
    """Prompts, each a group of its own, of responses whose order, lengths and scores know nothing of each other.

    Unless scores follow length, or people and scores shortness.
    """
    generator = np.random.default_rng(seed)
    data, scores = [], []
    for number in range(prompts):
        lengths = generator.permutation(100)[:count] + 1
        order = np.argsort(lengths) if by == "shortness" else generator.permutation(count)
        data.append(example(lengths.tolist(), [[place] for place in order.tolist()], group=number))
        row = {"nothing": generator.normal(size=count), "length": lengths, "shortness": -lengths}[by]
        scores.append(row.astype(float).tolist())
    return data, scores


@pytest.mark.parametrize(("prompts", "count"), [(3, 4), (10, 2)])
def test_noise_has_not_learned_length(prompts: int, count: int) -> None:
    found = [warned(random_scores(prompts, count=count, seed=seed)) for seed in range(60)]
    assert not any("learned length" in warning for warnings in found for warning in warnings)
    assert any("longer response" in warning for warnings in found for warning in warnings)


def test_few_prompts_are_enough_where_scores_are_lengths() -> None:
    for by in ("length", "shortness"):
        found = [warning for warning in warned(random_scores(12, seed=5, by=by)) if "learned length" in warning]
        assert len(found) == 1, by
        value = "1.00" if by == "length" else "−1.00"
        assert f"(rank correlation {value} within prompts, 95 % interval {value} to {value})" in found[0]


def test_a_model_as_good_as_length_is_not_shown_to_be_better() -> None:
    (warning,) = warned(pairs(1500, right=0.7, longer=0.7, size=0.85))
    assert warning.startswith("On validation, the model is not shown to be better than choosing the longer response")


def test_a_model_worse_than_length_hears_by_how_much() -> None:
    (warning,) = warned(pairs(1500, right=0.65, longer=0.8, size=0.62))
    assert warning.startswith(
        "On validation, choosing the longer response is right more often than the model (difference −1"
    )


def test_where_people_like_it_short_the_rule_is_shortness() -> None:
    (warning,) = warned(pairs(1500, right=0.65, longer=0.2, size=0.62))
    assert "choosing the shorter response is right more often" in warning
    assert warned(pairs(1500, right=0.75, longer=0.4)) == []


@pytest.mark.parametrize(("size", "manner"), [(4.0, "too sure of itself"), (0.2, "too unsure of itself")])
def test_calibration_off_by_more_than_noise_names_the_divisor(size: float, manner: str) -> None:
    (warning,) = warned(pairs(1500, right=0.75, longer=0.5, size=size))
    assert manner in warning
    assert "75 % are right" in warning or "74 % are right" in warning or "76 % are right" in warning


def test_a_small_miscalibration_is_nothing_to_speak_of() -> None:
    assert warned(pairs(1500, right=0.75, longer=0.5, size=1.2)) == []


def test_a_tie_model_no_better_than_constants_is_named() -> None:
    def constant(margin: Any) -> Any:
        return np.log(np.tile([0.4, 0.2, 0.4], (len(margin), 1)))

    def knowing(margin: Any) -> Any:
        wins = 0.98 / (1 + np.exp(-margin))
        return np.log(np.stack([wins, np.full(len(margin), 0.02), 0.98 - wins], axis=1))

    split = pairs(1500, right=0.75, longer=0.5)
    split[0][0] = example([1, 2], [[0, 1]], group=0)
    assert [
        one for one in warned(split, outcome_log_probabilities=constant) if "not shown to be predicted better" in one
    ]
    assert warned(split, outcome_log_probabilities=knowing) == []


def test_without_pairs_or_with_one_group_it_says_so() -> None:
    assert warned(([], [])) == ["There are no validation pairs: held-out accuracy is unknown."]
    one_group = [example([3, 1], [[0], [1]]), example([3, 1], [[0], [1]])]
    found = warned((one_group, [[1.0, 0.0], [1.0, 0.0]]))
    assert "All validation pairs are of one split group: there is no interval." in found


def test_what_was_left_out_or_stands_twice_or_was_made_up_is_named() -> None:
    def about(**known: Any) -> list[str]:
        return warnings_about({}, defused_texts=0, skipped_steps=0, not_packed=None, **known)

    assert about() == about(shared_groups=0, cut=0, template=None) == []
    assert about(shared_groups=3, cut=20, template="chatml") == [
        "3 conversations (split groups) stand in several splits: held-out figures are too good.",
        "20 unranked responses were too long and left out.",
        "The model has no chat template; texts were rendered with Plackett's own, chatml.",
    ]
    assert about(shared_groups=1, cut=1) == [
        "1 conversation (split group) stands in several splits: held-out figures are too good.",
        "1 unranked response was too long and left out.",
    ]


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    section = evaluate(*pairs(40, right=0.75, longer=0.5), seed=0)
    counts = {"rankings": 1, "prompts": 1, "pairs": 1}
    return {"counts": {"train": counts}, "steps": 3, "validation": section, "warnings": ["Look."]}


def test_the_card_tells_what_the_numbers_beside_the_weights_mean(report: dict[str, Any]) -> None:
    """The mean is the one that stands in the model's configuration, which is on the folded scale."""
    scale = ScoreScale(mean=-1.4, std=0.7)
    model: Any = SimpleNamespace(head=nn.Linear(2, 1, bias=False), whole=SimpleNamespace(config=SimpleNamespace()))
    fold_scale(model, scale, thresholds={"eta": 0.25}, ties="rao-kupper")
    written = vars(model.whole.config)
    more = {"score_scale": vars(scale), "thresholds": {"eta": 0.25}, "kept_step": 2}
    card = reward_model_card(base="base", report=report | more, config={}, data_sha256="abc", licence=None)
    assert f"`{MEAN_KEY}` = {written[MEAN_KEY]:.4f}: " in card
    assert f"`{SCALE_KEY}` = {written[SCALE_KEY]:.4f}: " in card
    assert f"`{THRESHOLDS_KEY}`: eta = {written[THRESHOLDS_KEY]['eta']:.4f}, " in card
    assert "3 steps; weights of step 2, lowest validation log-loss." in card
    report |= {"thresholds": {}}
    without = reward_model_card(base="base", report=report, config={}, data_sha256="abc", licence=None)
    assert "plackett_" not in without and "weights of step" not in without and "None" not in without


def test_the_card_tells_what_an_ensemble_says_together(report: dict[str, Any]) -> None:
    whole = report["validation"]["accuracy"] | {"value": 0.8125, "low": 0.75, "high": 0.875}
    together = {"members": 3, "accuracy": whole, "spread": {"mean": 0.214, "responses": 80}}
    card = reward_model_card(
        base="base",
        report=report | {"validation": report["validation"] | {"ensemble": together}},
        config={},
        data_sha256="abc",
        licence=None,
    )
    assert "This is the first of 3 models" in card
    assert "- validation: accuracy of the mean score 0.812 (0.750 to 0.875); standard deviation" in card
    assert "0.214 on average" in card


def test_the_card_is_no_way_in_for_markup(report: dict[str, Any]) -> None:
    hostile = "`a`\n# <b>*x*</b> | [y](http://z)"
    card = reward_model_card(
        base=hostile,
        report=report | {"warnings": [hostile]},
        config={"system": hostile},
        data_sha256="abc",
        licence=None,
    )
    assert "<b>" not in card.replace("`a # <b>*x*</b> | [y](http://z)`", "")
    assert "\n# <" not in card and "[y](" not in card.replace("`a # <b>*x*</b> | [y](http://z)`", "")
    assert card.count("\\`a\\` # &lt;b>\\*x\\*&lt;/b> \\| \\[y\\](http://z)") == 2


def test_the_card_names_the_licence_of_the_base_model(report: dict[str, Any]) -> None:
    card = reward_model_card(base="base", report=report, config={}, data_sha256="abc", licence=Licence("mit"))
    assert card.startswith("---\nlicense: mit\n") and "## Licence\n\n`mit`, as the base model" in card


def test_the_card_shows_the_main_figures(report: dict[str, Any]) -> None:
    section = report["validation"]
    card = reward_model_card(base="base", report=report, config={}, data_sha256="abc", licence=None)
    assert f"| log-loss, nats a pair | {section['log_loss']:.3f} (" in card
    assert "| agreement of two annotators of one task | unknown |" in card
    assert "- Look." in card
