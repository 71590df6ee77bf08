"""The page of workers: who lives, what each holds, and how its machine is. For engineers of any project."""

import hashlib
import json
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.utils.translation import pgettext
from django.views.decorators.http import require_safe

from annotate.models import User
from annotate.pages.access import page, page_data, visitor
from training.models import Worker
from training.selectors import SILENT_SECONDS
from training.selectors_workers import Held, held_by, workers_for
from training.templatetags.run_numbers import duration

JUST_NOW_SECONDS = 15


@require_safe
@page
def workers(request: HttpRequest) -> HttpResponse:
    """Workers of the last day."""
    return render(request, "training/workers.html", _live(visitor(request)))


@require_safe
@page_data  # a log-in page must not land in the middle of the page
def workers_live(request: HttpRequest) -> HttpResponse:
    """The part of the page that moves, which is all of it; 204 when it is what the page has already."""
    content = _live(visitor(request))
    if request.GET.get("seen") == content["seen"]:
        return HttpResponse(status=204)
    return render(request, "training/_workers_live.html", content)


def _live(user: User) -> dict[str, Any]:
    """The rows as they are shown, and `seen`, which changes when something shown does."""
    found = list(workers_for(user))
    held = held_by(found, user=user)
    rows = [_row(worker, held[worker.name]) for worker in found]
    rows.sort(key=lambda row: not row["alive"])  # those that live first, both parts by name
    shown = json.dumps(rows, default=str)
    return {"rows": rows, "seen": hashlib.sha256(shown.encode()).hexdigest()[:16]}


def _row(worker: Any, held: list[Held]) -> dict[str, Any]:
    silent = max(worker.silent.total_seconds(), 0)
    state, colour = _state(worker, alive=worker.alive, silent=silent)
    return {
        "number": worker.pk,
        "name": worker.name,
        "alive": worker.alive,
        "state": state,
        "colour": colour,
        "host": worker.host,
        "process_id": worker.process_id,
        "queues": worker.queues,
        "version": worker.version,
        "processors": worker.processors,
        "processes": worker.processes,
        "memory": _memory(worker.memory_used_bytes, worker.memory_bytes),
        "gpus": [
            {
                "name": gpu["name"],
                "busy": "" if gpu["busy"] is None else f"{gpu['busy'] * 100:.0f}\N{NO-BREAK SPACE}%",
                "memory": _memory(gpu["memory_used_bytes"], gpu["memory_bytes"]),
            }
            for gpu in worker.gpus
        ],
        "heard": _("just now") if silent < JUST_NOW_SECONDS else _("%(time)s ago") % {"time": duration(silent)},
        "held": [
            {
                "run": one.run and {"id": one.run.pk, "name": one.run.name, "project": one.run.project.name},
                "attempt": one.attempt,
                "machine": one.machine,
                "machines": one.machines,
                "time": duration(one.seconds),
            }
            for one in held
        ],
    }


def _state(worker: Worker, *, alive: bool, silent: float) -> tuple[str, str]:
    """The word for how it is, and its colour."""
    if worker.stopped_at is not None:
        return pgettext("state of a worker", "stopped"), ""
    if not alive:
        return pgettext("state of a worker", "gone"), "bad"
    if silent > SILENT_SECONDS:
        return pgettext("state of a worker", "silent"), "warn"
    return pgettext("state of a worker", "alive"), "good"


def _memory(used: int, whole: int) -> dict[str, int]:
    """In bytes, to a hundredth of a gigabyte: smaller changes are not shown and need no new page."""
    step = 2**30 // 100
    return {"used": round(used / step) * step, "whole": whole}
