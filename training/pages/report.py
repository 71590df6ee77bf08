"""What pages show of a run's or a model's report, in the reader's language."""

from collections.abc import Mapping
from typing import Any

from django.utils.formats import get_format
from django.utils.safestring import mark_safe
from django.utils.translation import gettext

from training.core.report_parts import Part, main_figures, parts_of
from training.core.report_words import Figure
from training.core.wording import Wording


def report_parts(report: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The parts of a report, of whatever kind; what an older one lacks is left out."""
    return [_shown(part) for part in parts_of(report or {}, _words())]


def report_figures(report: Mapping[str, Any] | None) -> list[Figure]:
    """The main figures of a report's first part; none where nothing was held out."""
    return main_figures(report or {}, _words())


def report_headline(report: Mapping[str, Any] | None) -> Figure | None:
    """What a list says of a report: its first main figure; None where nothing was held out."""
    return next(iter(report_figures(report)), None)


def _words() -> Wording:
    return Wording(gettext, get_format("DECIMAL_SEPARATOR"), get_format("THOUSAND_SEPARATOR"))


def _shown(part: Part) -> dict[str, Any]:
    # Drawn by our own modules, which escape every text in them.
    plots = [{**vars(plot), "svg": mark_safe(plot.svg)} for plot in part.plots]
    return {**vars(part), "plots": plots}
