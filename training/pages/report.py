"""What the page of a model shows of its report: figures, plots and tables of each split, in the reader's language."""

from collections.abc import Mapping
from typing import Any

from django.utils.formats import get_format
from django.utils.safestring import mark_safe
from django.utils.translation import gettext
from django.utils.translation import gettext as _

from training.core.plots import plots_of
from training.core.report_words import facts_of, plot_notes, run_facts, run_tables, tables_of
from training.core.wording import Wording


def report_sections(report: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """One part a split that the report has held-out pairs of; what an older report lacks is left out.

    What is said of the model itself stands in the first of them.
    """
    names = {"validation": _("Validation"), "test": _("Test")}
    words = Wording(gettext, get_format("DECIMAL_SEPARATOR"), get_format("THOUSAND_SEPARATOR"))
    found = [
        _section(split, name, report[split], words)
        for split, name in names.items()
        if report and ((report.get(split) or {}).get("accuracy") or {}).get("value") is not None
    ]
    for first in found[:1]:
        first["facts"] += run_facts(report or {}, words)
        first["tables"] += run_tables(report or {}, words)
    return found


def _section(split: str, name: str, section: Mapping[str, Any], words: Wording) -> dict[str, Any]:
    notes = plot_notes(section, words)
    titles = {
        "calibration": _("Calibration"),
        "best_of_n": _("Best of n"),
        "parts": _("Accuracy by kind of pair"),
    }
    plots = [
        # Drawn by our own module, which escapes every text in it.
        {"name": kind, "title": titles[kind], "svg": mark_safe(plot), "note": notes[kind]}
        for kind, plot in plots_of(section, name=split, words=words).items()
    ]
    return {
        "split": split,
        "name": name,
        "accuracy": section["accuracy"],
        "length_baseline": section.get("length_baseline") or {},
        "log_loss": section.get("log_loss"),
        "plots": plots,
        "facts": facts_of(section, words),
        "tables": tables_of(section, words),
    }
