"""What moves on a run's page besides its curves: samples, the use of machines, and what the run took."""

import hashlib
from dataclasses import asdict
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from annotate.pages.access import page_data, visitor
from training.models import Run, RunSample
from training.selectors import get_run_for
from training.selectors_samples import samples_of
from training.selectors_use import cost_of, device_hours, use_of

FIRST_STEPS, FURTHER_STEPS, MOST_STEPS = 2, 4, 50
LONG = 320  # characters; a longer text is folded behind its beginning
BEGINNING = 220


@require_safe
@page_data
def run_samples(request: HttpRequest, run_id: int) -> HttpResponse:
    """The table of samples with the newest ``?steps=``; 204 when it is what the page has already."""
    found = get_run_for(visitor(request), run_id)
    samples = samples_part(found, steps=asked_steps(request))
    if request.GET.get("seen") == samples["seen"]:
        return HttpResponse(status=204)
    return render(request, "training/_samples.html", {"run": found, "samples": samples})


@require_safe
@page_data
def run_use(request: HttpRequest, run_id: int) -> HttpResponse:
    """How busy the run's machines were, for its charts."""
    found = get_run_for(visitor(request), run_id)
    return JsonResponse({"finished": found.is_finished, "lines": [asdict(line) for line in use_of(found)]})


def samples_part(run: Run, *, steps: int) -> dict[str, Any]:
    """The newest steps of the table, and `seen`, which changes when something of it does."""
    table = samples_of(run, steps=steps)
    shown = [(one.step, [(row.attempt, row.place) for row in one.rows]) for one in table.steps]
    return {
        "steps": [{"step": one.step, "rows": [_row(row) for row in one.rows]} for one in table.steps],
        "shown": steps,
        "further": min(steps + FURTHER_STEPS, MOST_STEPS) if table.older and steps < MOST_STEPS else None,
        "older": table.older,
        "seen": hashlib.sha256(repr((run.is_finished, table.older, shown)).encode()).hexdigest()[:16],
    }


def spent(run: Run) -> dict[str, Any]:
    """What the run took so far: `hours` of devices, and what they `cost` where a price is set."""
    hours = device_hours(run)
    return {"hours": hours, "cost": cost_of(hours)}


def asked_steps(request: HttpRequest) -> int:
    """How many sampled steps the address asks for; nonsense is the usual."""
    return min(max(asked_number(request, "samples") or FIRST_STEPS, 1), MOST_STEPS)


def asked_number(request: HttpRequest, name: str) -> int | None:
    """A whole number of the address; None where it is missing or is none."""
    text = request.GET.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _row(row: RunSample) -> dict[str, Any]:
    *earlier, last = row.prompt or [{"role": "", "content": ""}]
    return {
        "row": row,
        "earlier": earlier,
        "prompt": _text(last["content"]),
        "before": None if row.before is None else _text(row.before),
        "response": _text(row.response),
        "scores": list(row.scores.items()) if len(row.scores) > 1 else [],
    }


def _text(whole: str) -> dict[str, str]:
    """A text, and its beginning if it is long."""
    if len(whole) <= LONG:
        return {"whole": whole, "beginning": ""}
    beginning = whole[:BEGINNING]
    return {"whole": whole, "beginning": beginning[: beginning.rfind(" ")] if " " in beginning else beginning}
