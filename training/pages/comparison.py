"""Runs beside each other: their curves in the same charts, the settings that differ, what came out of each."""

from collections.abc import Sequence
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from annotate.errors import NotFound
from annotate.pages.access import page, visitor
from training.models import Run
from training.pages.curves import compared_charts
from training.pages.report import report_figures
from training.pages.states import colour_of
from training.recipes.configs import RECIPES, describe
from training.selectors_comparison import FEWEST, MOST, companions_of, differing_settings, runs_to_compare
from training.selectors_use import cost_of, device_hours
from training.services.run_settings import recipe_of_run

MAX_DIGITS = 19


@require_safe
@page
def compare(request: HttpRequest) -> HttpResponse:
    """The runs of ``?run=ID&run=ID…``, two to six; with one or none, which there are to choose from."""
    runs = runs_to_compare(visitor(request), asked_runs(request))
    if len(runs) < FEWEST:
        one = runs[0] if runs else None
        found = companions_of(one) if one else []
        alike = next((run for run, _why in found if one and run.kind == one.kind), None)
        rows = [{"run": run, "why": why, "colour": colour_of(run), "ticked": run == alike} for run, why in found]
        return render(request, "training/compare_with.html", {"run": one, "rows": rows, "most": MOST})
    hours = [device_hours(run) for run in runs]
    context = {
        "runs": [
            {"run": run, "number": number, "colour": colour_of(run), "hours": spent, "cost": cost_of(spent)}
            for number, (run, spent) in enumerate(zip(runs, hours, strict=True), 1)
        ],
        "charts": compared_charts(runs),
        "differences": differences_of(runs),
        "figures": figures_of(runs),
        "add": runs[0] if len(runs) < MOST else None,
        "costs": any(cost_of(spent) for spent in hours),
    }
    return render(request, "training/compare.html", context)


def asked_runs(request: HttpRequest) -> list[int]:
    """The runs that the address names.

    Raises:
        NotFound: one of them is no run's number.
    """
    asked = request.GET.getlist("run")
    if not all(one.isascii() and one.isdecimal() and len(one) < MAX_DIGITS for one in asked):
        raise NotFound(_("There is no such run."))
    return [int(one) for one in asked]


def differences_of(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The settings that differ, with what they are."""
    fields = {field.name: field for run in runs for field in describe(RECIPES[recipe_of_run(run)])}
    rows = []
    for one in differing_settings(runs):
        field = fields.get(one.name)
        rows.append(
            {
                "name": one.name,
                "unit": field.unit if field else "",
                "help": field.help if field else "",
                "cells": list(zip(one.values, one.has, strict=True)),
            }
        )
    return rows


def figures_of(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The main figures of the reports, each with that of every run; none where a run has no such figure."""
    found = [{figure.name: figure for figure in report_figures(run.report)} for run in runs]
    names = dict.fromkeys(name for figures in found for name in figures)
    return [{"name": name, "cells": [figures.get(name) for figures in found]} for name in names]
