"""A report of any kind as parts to be shown one below the other: the same in a run's folder and in the browser.

Standard library only: pages import this without loading torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.core.plots import plots_of
from training.core.policy_plots import policy_plots
from training.core.policy_words import (
    interval_note,
    margin_facts,
    perplexity_facts,
    perplexity_figures,
    policy_facts,
    policy_figures,
    policy_plot_notes,
    policy_tables,
)
from training.core.report_words import Fact, Figure, Table, facts_of, plot_notes, run_facts, run_tables, tables_of
from training.core.sampling_words import sampling_figures, sampling_table
from training.core.wording import ENGLISH, Wording

Report = Mapping[str, Any]

SPLITS = ("validation", "test", "train")


@dataclass(frozen=True)
class Plot:
    """A drawing: its kind, what it is called, the SVG, and what it shows."""

    kind: str
    title: str
    svg: str
    note: str


@dataclass(frozen=True)
class Part:
    """One section of the page; ``key`` is its id and begins the names of its plots' files."""

    key: str
    title: str
    figures: list[Figure]
    plots: list[Plot]
    facts: list[Fact]
    tables: list[Table]


def parts_of(report: Report, words: Wording = ENGLISH) -> list[Part]:
    """The parts that a report has something for, a policy's first.

    A policy's answers (``before`` and ``after``), held-out text (perplexity), and each split with pairs that a judge's
    or an implicit reward's scores were compared with people on. What an older report lacks is left out.
    """
    gettext = words.gettext
    titles = dict(zip(SPLITS, (gettext("Validation"), gettext("Test"), gettext("Training")), strict=True))
    if report.get("kind") == "sampling":
        return [_sampling_part(report, words)]
    found = [_policy_part(report, words)] if report.get("after") else []
    for split, title in titles.items():
        section = report.get(split) or {}
        if _has(section, "perplexity"):
            found.append(_perplexity_part(split, title, report, section, words))
        elif _has(section, "accuracy"):
            # What is said of the model itself stands with the first part.
            found.append(_pairs_part(split, title, section, {} if found else report, words))
    return found


def main_figures(report: Report, words: Wording = ENGLISH) -> list[Figure]:
    """Those of the first part, nothing drawn; none where there is no part."""
    if report.get("kind") == "sampling":
        return sampling_figures(report, words)
    if report.get("after"):
        return policy_figures(report, words)
    for split in SPLITS:
        section = report.get(split) or {}
        if _has(section, "perplexity"):
            return perplexity_figures(section, report.get("before") or {}, words)
        if _has(section, "accuracy"):
            return _pair_figures(section, words)
    return []


def _has(section: Any, name: str) -> bool:
    return isinstance(section, Mapping) and (section.get(name) or {}).get("value") is not None


def _policy_part(report: Report, words: Wording) -> Part:
    gettext, notes = words.gettext, policy_plot_notes(report, words)
    titles = {
        "reward_kl": gettext("Reward against KL"),
        "scores": gettext("Score and judge"),
        "length": gettext("Length"),
    }
    return Part(
        "policy",
        gettext("Answers to held-out prompts"),
        policy_figures(report, words),
        _plots(policy_plots(report, name="policy", words=words), titles, notes),
        policy_facts(report, words),
        policy_tables(report, words),
    )


def _sampling_part(report: Report, words: Wording) -> Part:
    figures, table = sampling_figures(report, words), sampling_table(report, words)
    return Part("responses", words.gettext("Responses"), figures, [], [], [table])


def _perplexity_part(split: str, title: str, report: Report, section: Report, words: Wording) -> Part:
    figures = perplexity_figures(section, report.get("before") or {}, words)
    return Part(split, title, figures, [], perplexity_facts(section, words) + run_facts(report, words), [])


def _pairs_part(split: str, title: str, section: Report, report: Report, words: Wording) -> Part:
    gettext = words.gettext
    titles = {
        "calibration": gettext("Calibration"),
        "best_of_n": gettext("Best of n"),
        "parts": gettext("Accuracy by kind of pair"),
    }
    return Part(
        split,
        title,
        _pair_figures(section, words),
        _plots(plots_of(section, name=split, words=words), titles, plot_notes(section, words)),
        margin_facts(section, words) + facts_of(section, words) + run_facts(report, words),
        tables_of(section, words) + run_tables(report, words),
    )


def _pair_figures(section: Report, words: Wording) -> list[Figure]:
    gettext, accuracy = words.gettext, section["accuracy"]
    longer = section.get("length_baseline") or {}
    prompts = accuracy.get("prompts")
    of = gettext("of 1 prompt") if prompts == 1 else gettext("of %(number)s prompts")
    return [
        Figure(gettext("held-out accuracy"), words.percent(accuracy["value"]), interval_note(accuracy, words)),
        Figure(gettext("longer response wins"), words.percent(longer.get("value")), interval_note(longer, words)),
        Figure(gettext("chance"), words.percent(0.5)),
        Figure(gettext("log loss, nats a pair"), words.figure(section.get("log_loss"))),
        Figure(
            gettext("pairs"),
            words.count(accuracy["pairs"]),
            "" if prompts is None else of % {"number": words.count(prompts)},
        ),
    ]


def _plots(drawn: Mapping[str, str], titles: Mapping[str, str], notes: Mapping[str, str]) -> list[Plot]:
    return [Plot(kind, titles[kind], svg, notes[kind]) for kind, svg in drawn.items()]
