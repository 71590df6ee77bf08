"""What the report of a policy says: warnings, words, tables, plots, card, page; and perplexity against a loop."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from subprocess import run
from sys import executable

import numpy as np
import pytest

from tests.training.core.judged import random_split
from tests.training.core.policies import ppo_report, sft_report
from tests.training.core.test_report_page import HOSTILE, Read
from training.core.overoptimisation import LENGTH_GROWS_TO
from training.core.policy_cards import policy_card
from training.core.policy_plots import ALARM, policy_plots, ticks
from training.core.policy_reports import implicit_margins, perplexity_report, policy_line, policy_warnings
from training.core.report_page import report_html, write_report_files
from training.core.report_parts import main_figures, parts_of

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def exploited():
    return ppo_report()


@pytest.fixture(scope="module")
def honest():
    return ppo_report(exploited=False)


# --- warnings --------------------------------------------------------------------------------------------------------


def one_warning(report, words):
    found = [warning for warning in policy_warnings(report) if words in warning]
    return found[0] if len(found) == 1 else None


def test_suspicion_comes_first_and_says_which_weights_there_are(exploited, honest):
    first = policy_warnings(exploited)[0]
    assert first.startswith("Suspect of over-optimisation since step 80. At step 80 the judge's score is")
    assert "weights of step 50" in first
    assert not any("Suspect" in warning for warning in policy_warnings(honest))


def changed(report, **parts):
    """A report with some of its figures replaced, those of a dict one by one."""
    return report | {
        name: {**(report.get(name) or {}), **value} if isinstance(value, dict) else value
        for name, value in parts.items()
    }


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"win_rate": {"prompts": 40}}, "rest on 40 held-out prompts only"),
        ({"judge": {"disjoint": False}}, "may share the mistakes"),
        ({"judge": {"disjoint": None}}, "not known whether the judge"),
        ({"judge": {"accuracy": {"value": 0.52}}}, "on 52 % of held-out pairs, little beyond chance"),
        ({"judge": {"source": "12 rankings are too few"}, "win_rate": None}, "No judge (12 rankings are too few)"),
        ({"win_rate": {"low": 0.3, "high": 0.45}}, "prefers the answers of the policy at the start"),
        (
            {"win_rate": {"low": 0.45, "high": 0.6}},
            "not shown to be better than at the start (wins: 95 % interval 45.0",
        ),
        ({"length_controlled_win_rate": {"low": 0.4}}, "At equal lengths the policy is not shown"),
        ({"best_of_4": {"value": 0.9}}, "Choosing the best-scored of 4 answers"),
        ({"after": {"length_mean": 60.0}}, "Responses grew from 37 to 60 tokens (+62 %)"),
        ({"after": {"eos_rate": 0.75}}, "25 % of the responses were cut off"),
        ({"after": {"kl": 31.0}}, "far from its start: 31 nats"),
        ({"kept_step": 40}, "The weights (step 40) were chosen on the prompts"),
    ],
)
def test_each_weakness_is_told_where_it_is_and_only_there(honest, parts, words):
    best = {"value": 0.6, "n": 4, "kl": 0.6}
    strong = changed(honest, best_of_4=best, after={"length_mean": honest["before"]["length_mean"]})
    assert policy_warnings(strong) == []
    assert one_warning(changed(strong, **parts), words)


def test_weights_chosen_elsewhere_need_no_warning(exploited):
    chosen = "were chosen on the prompts"
    assert one_warning(exploited, chosen)
    assert not one_warning(exploited | {"split": "test"}, chosen)
    assert not one_warning(exploited | {"split": "validation", "kept_step": exploited["steps"]}, chosen)


def test_dpo_that_pushed_both_sides_down_is_told():
    def report(low, high):
        preferred = {"value": (low + high) / 2, "low": low, "high": high}
        return {"kind": "dpo", "validation": {"margins": {"preferred": preferred}}}

    assert policy_warnings(report(-2.0, -1.0)) == [
        "Training made even the preferred validation responses less likely (implicit reward −1.50 nats): what "
        "it prefers now is something else."
    ]
    assert policy_warnings(report(-2.0, 0.1)) == policy_warnings(report(0.1, 0.2)) == []


def test_margins_are_over_strict_pairs_and_add_up():
    data, scores = random_split(10)
    found = implicit_margins(data, scores, seed=1)
    margins, preferred = [], []
    for example, row in zip(data, scores, strict=True):
        for ranking in example.rankings:
            for number, tier in enumerate(ranking.tiers):
                for winner in tier:
                    for loser in (place for lower in ranking.tiers[number + 1 :] for place in lower):
                        if winner != loser:
                            margins.append(row[winner] - row[loser])
                            preferred.append(row[winner])
    assert found["pairs"] == len(margins)
    assert found["margin"]["value"] == pytest.approx(np.mean(margins))
    assert found["preferred"]["value"] == pytest.approx(np.mean(preferred))
    assert found["margin"]["value"] == pytest.approx(found["preferred"]["value"] - found["other"]["value"])
    assert found["margin"]["low"] < found["margin"]["value"] < found["margin"]["high"]
    assert implicit_margins([], [], seed=1)["margin"]["value"] is None


def test_nothing_held_out_is_told():
    report = {"kind": "ppo", "suspect": None}
    assert "no held-out prompts" in policy_warnings(report)[0]
    assert policy_warnings({"kind": "dpo"}) == []
    assert policy_warnings({"kind": "sft"}) == ["There is no held-out text: perplexity is unknown."]


def test_what_the_recipe_found_stands_behind():
    found = policy_warnings(
        {"kind": "dpo"}, skipped_steps=2, defused_texts=3, template="plain", trained_on=["One.", "Two."]
    )
    assert found[:2] == ["One.", "Two."]
    assert [word in " ".join(found) for word in ("2 steps", "3 texts", "plain")] == [True] * 3


# --- held-out text ---------------------------------------------------------------------------------------------------


def test_perplexity_is_over_tokens_and_its_change_is_paired():
    losses, tokens, before = np.array([10.0, 4.0, 9.0]), np.array([5.0, 2.0, 3.0]), np.array([12.0, 5.0, 9.5])
    found = perplexity_report(losses, tokens, ["a", "b", "c"], seed=1, before=before)
    json.dumps(found, allow_nan=False)
    assert found["validation"]["loss"] == pytest.approx(23 / 10)
    perplexity = found["validation"]["perplexity"]
    assert perplexity["value"] == pytest.approx(math.exp(2.3))
    assert perplexity["low"] == pytest.approx(math.exp(2.0)) and perplexity["high"] == pytest.approx(math.exp(3.0))
    assert (perplexity["tokens"], perplexity["documents"]) == (10, 3)
    assert found["validation"]["change"]["value"] == pytest.approx((23 - 26.5) / 10)
    assert found["before"]["perplexity"]["value"] == pytest.approx(math.exp(2.65))


def test_without_text_there_is_no_perplexity():
    none = np.zeros(0)
    found = perplexity_report(none, none, [], seed=1, before=none)
    json.dumps(found, allow_nan=False)
    assert found["validation"]["loss"] is None and found["validation"]["perplexity"]["value"] is None
    assert parts_of({"kind": "sft", **found}) == []


def test_held_out_loss_that_did_not_fall_is_told():
    tokens = np.full(40, 10.0)
    groups = [f"g{number}" for number in range(40)]
    losses = np.random.default_rng(0).normal(20, 1, size=40)
    same = {"kind": "sft", **perplexity_report(losses, tokens, groups, seed=1, before=losses)}
    assert policy_warnings(same) == ["Held-out loss is not shown to have fallen."]
    better = {"kind": "sft", **perplexity_report(losses, tokens, groups, seed=1, before=losses + 5)}
    assert policy_warnings(better) == []
    few = {"kind": "sft", **perplexity_report(losses[:9], tokens[:9], groups[:9], seed=1)}
    assert policy_warnings(few) == ["Held-out perplexity rests on 9 split groups only."]


# --- parts -----------------------------------------------------------------------------------------------------------


def test_every_figure_of_a_policy_is_told(exploited):
    (part,) = parts_of(exploited)
    assert part.figures == main_figures(exploited)
    figures = {figure.name: figure for figure in part.figures}
    wins = exploited["win_rate"]
    assert figures["wins against the start"].value == f"{wins['value'] * 100:.1f}\xa0%"
    assert f"{wins['low'] * 100:.1f}\xa0% to" in figures["wins against the start"].note
    assert {"wins at equal lengths", "best of 4 of the start", "score", "tokens a response"} < figures.keys()
    assert figures["score"].note == "−0.0861 at the start, difference +1.25 (+0.995 to +1.50)"
    assert figures["KL, nats a response"].note == ""
    facts = {fact.name: fact for fact in part.facts}
    assert facts["suspect since step"].value == "80" and "judge" in facts["suspect since step"].meaning
    assert facts["weights of step"].value == "50"
    assert facts["rewarded"].value == "model, format × 0.200"
    assert "in 81\xa0% of the pairs" in facts["wins at equal lengths"].meaning
    assert facts["the judge's held-out accuracy"].value.startswith("68.3\xa0% (64.1")
    assert "no prompt in common" in facts["the judge's held-out accuracy"].meaning
    assert facts["pairs for people"].value == "117"
    before_after, course = part.tables
    rows = {row[0]: row for row in before_after.rows}
    assert len(rows) == 13 and all(len(row) == 4 for row in rows.values())
    assert rows["ended by itself"][1].endswith("%") and rows["entropy, nats a token"][1] == "2.10"
    assert rows["reward: model"][3].startswith("+0.6")
    assert len(course.rows) == len(exploited["curve"])


def test_a_divergence_below_zero_is_said_to_be_an_estimate():
    (figure,) = main_figures({"kind": "ppo", "after": {"kl": -0.02}})
    assert (figure.value, figure.note) == ("−0.0200", "estimated from samples")


def test_what_is_missing_is_left_out(exploited):
    bare = {"kind": "ppo", "before": {"score": 0.0}, "after": {"score": 1.0}, "judge": {"source": "too few rankings"}}
    (part,) = parts_of(bare)
    assert [(figure.name, figure.note) for figure in part.figures] == [("score", "0 at the start")]
    assert [(fact.value, fact.meaning) for fact in part.facts] == [("–", "too few rankings")]
    assert part.plots == [] and len(part.tables) == 1
    assert parts_of({"kind": "ppo", "warnings": []}) == []
    Read(report_html({"kind": "ppo", "warnings": ["Nothing."]}, title="Empty"))


def test_without_a_judge_the_kept_step_is_said_to_be_by_score(exploited):
    curve = [{**point, "judge": None} for point in exploited["curve"]]
    facts = {fact.name: fact.meaning for fact in parts_of(exploited | {"curve": curve})[0].facts}
    assert "score less KL" in facts["weights of step"]


def test_sft_shows_perplexity_before_and_after():
    report = sft_report()
    (part,) = parts_of(report)
    figures = {figure.name: figure.value for figure in part.figures}
    assert part.figures == main_figures(report)
    assert float(figures["perplexity"]) < float(figures["before training"])
    assert figures["documents"] == "80"
    assert [fact.name for fact in part.facts] == ["loss changed by", "weights of step"]
    assert part.facts[0].value.startswith("−0.4")


def test_dpo_shows_pairs_with_margins_and_answers_if_there_are_any(exploited):
    interval = {"value": 0.61, "low": 0.5, "high": 0.7}
    margins = {"margin": interval, "preferred": {**interval, "value": -0.2}, "other": interval}
    section = {"accuracy": {**interval, "pairs": 10, "prompts": 1}, "log_loss": 0.6, "margins": margins}
    (part,) = parts_of({"kind": "dpo", "validation": section, "kept_step": 7})
    assert [fact.name for fact in part.facts] == [
        "margin", "preferred responses", "other responses", "log-loss", "weights of step",
    ]  # fmt: skip
    assert part.facts[1].value.startswith("−0.200")
    assert part.figures[-1].note == "of 1 prompt"
    both = parts_of(exploited | {"kind": "dpo", "validation": section})
    assert [part.key for part in both] == ["policy", "validation"]
    assert "weights of step" not in [fact.name for fact in both[1].facts], "said once"


def test_the_judges_own_accuracy_is_no_part(exploited):
    assert [part.key for part in parts_of(exploited)] == ["policy"]


# --- plots -----------------------------------------------------------------------------------------------------------


def test_plots_are_drawn_from_the_curve(exploited):
    plots = policy_plots(exploited, name="policy")
    assert list(plots) == ["reward_kl", "scores", "length"]
    points = len(exploited["curve"])
    for name, plot in plots.items():
        root = ElementTree.fromstring(plot)
        assert root.find(f"{SVG}title") is not None
        series = 1 if name == "length" else 2
        legend = series if series > 1 else 0
        shapes = len(root.findall(f"{SVG}circle")) + len(re.findall('class="rule"', plot))
        assert shapes == points * series + legend
        assert "style=" not in plot and "nan" not in plot
        assert "kept" in "".join(root.itertext())


def test_the_line_of_the_length_plot_is_where_the_alarm_is(exploited):
    assert ALARM == LENGTH_GROWS_TO
    assert ">alarm</text>" in policy_plots(exploited, name="x")["length"]


def places(plot):
    return [(float(x), float(y)) for x, y in re.findall(r'class="dot" cx="([\d.]+)" cy="([\d.]+)"', plot)]


def test_scores_stand_over_the_root_of_kl_as_changes_since_the_start():
    curve = [
        {"step": 5 * number, "kl": float(number**2), "score": 3.0 + number, "judge": None, "length": 20.0}
        for number in range(5)
    ]
    plot = policy_plots({"curve": curve}, name="x")["reward_kl"]
    dots = places(plot)
    ticks_up = re.findall(r'text-anchor="end">(\d+)</text>', plot)
    assert ticks_up == ["0", "1", "2", "3", "4"], "of the change, not of the score"
    # Equal steps of √KL and of the score: a straight line.
    across, up = np.array(dots).T
    assert np.diff(across) == pytest.approx(np.diff(across)[0], abs=0.11) and np.diff(across)[0] > 0
    assert np.diff(up) == pytest.approx(np.diff(up)[0], abs=0.11) and np.diff(up)[0] < 0


def test_a_course_of_one_point_or_without_extent_draws_no_nonsense():
    point = {"step": 0, "kl": 0.0, "score": 1.0, "judge": 1.0, "length": 0.0}
    assert policy_plots({"curve": [point]}, name="x") == {}
    for plot in policy_plots({"curve": [point, {**point, "step": 1}]}, name="x").values():
        assert "nan" not in plot and "inf" not in plot


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.5, 1]),
        (-0.4, 1.6, [-0.5, 0, 0.5, 1, 1.5, 2]),
        (0, 37, [0, 10, 20, 30, 40]),
        (2, 2, [2, 3]),
        (0, 3e-6, [0, 1e-6, 2e-6, 3e-6]),
    ],
)
def test_ticks_are_round_and_enclose(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


# --- page, card, line ------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_else_and_escapes(exploited, tmp_path):
    report = exploited | {"judge": {"source": HOSTILE}, "warnings": [HOSTILE]}
    page = Read(report_html(report, title=HOSTILE))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("svg") == 3 and not {"script", "link", "img"} & set(tags)
    assert "".join(page.text).count(HOSTILE) == 4  # title, heading, warning, why there is no judge
    write_report_files(tmp_path, exploited, title="A policy")
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        "policy-reward-kl.svg", "policy-scores.svg", "policy-length.svg",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["sft", "dpo", "ppo"])
def test_the_card_says_data_measures_limits_and_settings(kind, exploited):
    report = sft_report() if kind == "sft" else exploited | {"kind": kind, "warnings": ["Mind *this*."]}
    config = {"model": "/secret/base", "reward": ["model:/secret/place/model*2"], "seed": 3, "judge": "/secret/judge"}
    card = policy_card(kind=kind, base="org/base", report=report, config=config, data_sha256="abc", licence=None)
    head = card.split("---")[1]
    assert "text-generation" in head and f"tags: [{kind}, plackett]" in head
    assert "`org/base`" in card and "`abc`" in card and "/secret" not in card
    assert f"{report['counts']['used']} of {report['counts']['read']} lines" in card
    assert ("perplexity" if kind == "sft" else "wins against the start") in card
    assert card.index("## Data") < card.index("## Measured") < card.index("## Limits") < card.index("## Settings")
    assert "- `seed`: 3" in card
    if kind != "sft":
        assert "Mind \\*this\\*." in card


def test_the_last_line_of_the_log(exploited, honest):
    line = policy_line(exploited)
    assert "wins 68.3" in line and "KL 9.40 nats" in line and line.endswith("suspect of over-optimisation")
    assert "suspect" not in policy_line(honest)
    assert "score −0.0861 → 1.16" in policy_line(honest | {"win_rate": None})
    assert policy_line(sft_report()).startswith("held-out perplexity ")
    assert policy_line({}) == "nothing held out"


def test_words_and_plots_of_policies_load_neither_torch_nor_numpy():
    code = "import sys, training.core.report_parts; print(*sys.modules)"
    loaded = run([executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "training.core.policy_plots" in loaded
    assert not {"torch", "numpy", "transformers", "django"} & set(loaded)
