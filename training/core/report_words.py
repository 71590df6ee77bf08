"""What a report says, in words and tables: each figure with a sentence on what it is.

One source for the page in the run's folder and for the model's page in the browser. Standard library only: pages import
this without loading torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.core.wording import ENGLISH, Wording, part_name

Section = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """A main figure: its name, its value, and a few words under it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Fact:
    """One figure: its name, its value in words, and what it is."""

    name: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Table:
    """Rows of words; the first column names the row, the others are numbers."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def facts_of(section: Section, words: Wording = ENGLISH) -> list[Fact]:
    """The figures of a split that are one number, those there are; the accuracy itself is left to the page."""
    facts = [
        *_against_length(section, words),
        *_ceiling(section, words),
        *_ranks(section, words),
        *_probabilities(section, words),
        *_ties(section, words),
        *_length(section, words),
        *_ensemble(section, words),
    ]
    return facts


def plot_notes(section: Section, words: Wording = ENGLISH) -> dict[str, str]:
    """What each plot shows, in a sentence or two, by the plot's name."""
    gettext = words.gettext
    curve = section.get("best_of_n") or {}
    return {
        "calibration": gettext(
            "How often the model's choice is right, by how sure it was. On the dashed line, a choice given 80 % is "
            "right 8 times in 10; below it, the model is too sure."
        ),
        "best_of_n": gettext(
            "Choose one of n responses, and see how many of the others people rank below it; 50 %% is a blind choice. "
            "Over the %(rankings)s rankings of at least %(placed)s responses."
        )
        % {"rankings": words.count(curve.get("rankings") or 0), "placed": curve.get("placed") or 0},
        "parts": gettext(
            "Pairs right, of all and of each kind, with 95 % intervals. Where the circle is not clear of the diamond, "
            "length alone does as well."
        ),
    }


def tables_of(section: Section, words: Wording = ENGLISH) -> list[Table]:
    """All figures that have parts, those there are."""
    found = [*_part_tables(section, words), *_calibration_table(section, words), *_best_of_n_table(section, words)]
    return [table for table in found if table.rows]


def run_facts(report: Section, words: Wording = ENGLISH) -> list[Fact]:
    """The figures that are one number and are of the model rather than of a split, those there are."""
    step, gettext = report.get("kept_step"), words.gettext
    if step is None:
        return []
    meaning = gettext("The model has the weights of this step: validation log-loss was lowest there.")
    return [Fact(gettext("weights of step"), words.count(step), meaning)]


def run_tables(report: Section, words: Wording = ENGLISH) -> list[Table]:
    """The numbers that stand in the model's folder beside its weights, those there are."""
    gettext = words.gettext
    scale: Mapping[str, Any] = report.get("score_scale") or {}
    thresholds: Mapping[str, Any] = report.get("thresholds") or {}
    names = (
        ("mean", gettext("mean")),
        ("std", gettext("standard deviation")),
    )
    value = gettext("value")
    found = [
        Table(
            gettext("Scale of the scores"),
            gettext(
                "Of the scores of training responses, as trained. The model in the folder divides by the standard "
                "deviation; multiplied by it, a difference of its scores is the log-odds that it was trained to."
            ),
            (gettext("as trained"), value),
            tuple((name, words.number(scale[key])) for key, name in names if key in scale),
        ),
        Table(
            gettext("Thresholds"),
            gettext("What was learned of ties and strengths, on the scale of the log-odds."),
            (gettext("threshold"), value),
            tuple((name, words.number(number)) for name, number in thresholds.items()),
        ),
    ]
    return [table for table in found if table.rows]


# --- facts -----------------------------------------------------------------------------------------------------------


def _against_length(section: Section, words: Wording) -> list[Fact]:
    found = section.get("against_length")
    if not found or found["value"] is None:
        return []
    meaning = words.gettext("Pairs right beyond those that always choosing the longer response gets, in points.")
    return [Fact(words.gettext("better than length by"), words.interval(found, words.points), meaning)]


def _ceiling(section: Section, words: Wording) -> list[Fact]:
    found, gettext = section.get("ceiling"), words.gettext
    if not found:
        return []
    name = gettext("agreement of two annotators")
    if found["two_annotators"] is None:
        reasons = {
            "no ranking by a person names its task and its annotator": gettext(
                "No ranking by a person names its task and its annotator."
            ),
            "no task was ranked by two people": gettext("No task was ranked by two people."),
            "two people never placed the same two responses, or only as equals": gettext(
                "Two people never placed the same two responses, or only as equals."
            ),
        }
        return [Fact(name, gettext("unknown"), reasons.get(found["reason"], str(found["reason"])))]
    people = gettext(
        "What one person would score in the model's place, judged by another who ranked the same task; a tie counts "
        "one half. Over %(pairs)s pairs of %(tasks)s tasks."
    ) % {"pairs": words.count(found["pairs"]), "tasks": words.count(found["tasks"])}
    model = gettext("The model, judged by the same people on the same pairs; it differs from them by %(gap)s points.")
    gap = words.interval(found["difference"], words.points)
    return [
        Fact(name, words.interval(found["two_annotators"]), people),
        Fact(gettext("the model on those pairs"), words.interval(found["model"]), model % {"gap": gap}),
    ]


def _ranks(section: Section, words: Wording) -> list[Fact]:
    found = section.get("kendall_tau_b_interval") or {"value": section.get("kendall_tau_b")}
    if found["value"] is None:
        return []
    meaning = words.gettext(
        "Agreement of the whole order by score with the whole human ranking, ties included: 1 the same, 0 by chance, "
        "−1 the reverse."
    )
    return [Fact(words.gettext("Kendall's τ-b"), words.interval(found, words.number), meaning)]


def _probabilities(section: Section, words: Wording) -> list[Fact]:
    gettext, facts = words.gettext, []
    loss = section.get("log_loss_interval") or {"value": section.get("log_loss")}
    if loss["value"] is not None:
        meaning = gettext(
            "Surprise at which response won, in nats a pair. Knowing nothing costs 0.693; less is better."
        )
        facts.append(Fact(gettext("log-loss"), words.interval(loss, words.number), meaning))
    if section.get("ece") is not None:
        meaning = gettext("How far confidence is from the share right, averaged over bins of confidence.")
        facts.append(Fact(gettext("calibration error"), words.percent(section["ece"]), meaning))
    if section.get("temperature") is not None:
        meaning = gettext("Scores divided by it fit best: above 1 the model is too sure of itself, below 1 too unsure.")
        facts.append(Fact(gettext("fitted temperature"), words.number(section["temperature"]), meaning))
    return facts


def _ties(section: Section, words: Wording) -> list[Fact]:
    found, gettext = section.get("outcomes"), words.gettext
    if not found or found["log_loss"]["value"] is None:
        return []
    three = gettext(
        "Surprise at win, tie or loss, in nats, over strict and tied pairs. Always giving how often people tie costs "
        "%(constant)s."
    ) % {"constant": words.number(found["constant_log_loss"]["value"])}
    share = gettext("What the model expects; people tied %(ties)s of the pairs.")
    ties = words.percent(found["ties"]["value"])
    return [
        Fact(gettext("log-loss with ties"), words.interval(found["log_loss"], words.number), three),
        Fact(gettext("share of ties"), words.interval(found["predicted_ties"]), share % {"ties": ties}),
    ]


def _length(section: Section, words: Wording) -> list[Fact]:
    found = section.get("score_length")
    if not found or found["spearman"]["value"] is None:
        return []
    meaning = words.gettext(
        "Rank correlation of score and characters among responses to the same prompt (Pearson's: %(pearson)s): near 1 "
        "the score says little more than length, near −1 little more than shortness."
    ) % {"pearson": words.number(found["pearson"]["value"])}
    return [Fact(words.gettext("score and length"), words.interval(found["spearman"], words.number), meaning)]


def _ensemble(section: Section, words: Wording) -> list[Fact]:
    found, gettext = section.get("ensemble"), words.gettext
    if not found or found["accuracy"]["value"] is None:
        return []
    mean = gettext(
        "Pairs right by the mean score of all %(members)s models; the rest of this page is about the first of them."
    ) % {"members": found["members"]}
    facts = [Fact(gettext("the ensemble's mean"), words.interval(found["accuracy"]), mean)]
    if found["spread"]["mean"] is not None:
        spread = gettext(
            "Standard deviation of a response's score over the models, on a scale where scores of training responses "
            "have 1. Where it is large, a person's judgement is worth most."
        )
        facts.append(Fact(gettext("the models are apart by"), words.number(found["spread"]["mean"]), spread))
    return facts


# --- tables ----------------------------------------------------------------------------------------------------------


def _part_tables(section: Section, words: Wording) -> list[Table]:
    gettext, families = words.gettext, section.get("accuracy_by") or {}
    titles = {
        "placed": (
            gettext("Accuracy by responses placed"),
            gettext("How many responses the ranking put in tiers."),
            gettext("placed"),
        ),
        "strength": (
            gettext("Accuracy by how much better"),
            gettext("What was said of the gap between neighbouring tiers; pairs with a tier between stand apart."),
            gettext("gap"),
        ),
        "annotators": (
            gettext("Accuracy by who judged"),
            gettext("Known annotators are those whose rankings the model was trained on."),
            gettext("judged by"),
        ),
        "annotator": (
            gettext("Accuracy by annotator"),
            gettext("The annotators with the most pairs, at most 20."),
            gettext("annotator"),
        ),
        "length_difference": (
            gettext("Accuracy by difference of length"),
            gettext("Quarters of the pairs, by how many characters the two responses are apart."),
            gettext("characters"),
        ),
    }
    columns = (
        gettext("right"),
        gettext("longer response"),
        gettext("difference, points"),
        gettext("pairs"),
        gettext("prompts"),
    )
    return [
        Table(
            title, note, (first, *columns), tuple(_part_row(family, part, words) for part in families.get(family) or ())
        )
        for family, (title, note, first) in titles.items()
    ]


def _part_row(family: str, part: Mapping[str, Any], words: Wording) -> tuple[str, ...]:
    return (
        part_name(family, part, words),
        words.interval(part),
        words.percent(part["length_baseline"]["value"]),
        words.interval(part["against_length"], words.points),
        words.count(part["pairs"]),
        words.count(part["prompts"]),
    )


def _calibration_table(section: Section, words: Wording) -> list[Table]:
    gettext = words.gettext
    bins: Sequence[Mapping[str, Any]] = section.get("calibration") or ()
    rows = tuple(
        (
            gettext("%(from)s to %(to)s") % {name: words.percent(one[name], 0) for name in ("from", "to")},
            words.percent(one["confidence"]),
            words.interval(one["accuracy"]),
            words.count(one["pairs"]),
        )
        for one in bins
    )
    head = (gettext("confidence"), gettext("on average"), gettext("right"), gettext("pairs"))
    return [Table(gettext("Calibration"), gettext("What the model gives the response that it prefers."), head, rows)]


def _best_of_n_table(section: Section, words: Wording) -> list[Table]:
    gettext = words.gettext
    points: Sequence[Mapping[str, Any]] = (section.get("best_of_n") or {}).get("points") or ()
    rows = tuple(
        (
            str(one["n"]),
            words.interval(one["model"]),
            words.interval(one["longest"]),
            words.percent(one["oracle"]["value"]),
            words.interval(one["against_longest"], words.points),
        )
        for one in points
    )
    head = (
        gettext("of"),
        gettext("by score"),
        gettext("the longest"),
        gettext("best possible"),
        gettext("score − longest, points"),
    )
    note = gettext("Share of the ranking's other responses that people place below the one chosen, ties one half.")
    return [Table(gettext("Best of n"), note, head, rows)]
