"""Runs and the form that starts one. Everything needs the engineer right in the project."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from annotate.errors import Invalid, NotFound, Refused
from annotate.models import Project, Snapshot
from annotate.pages.access import page, page_data, visitor
from annotate.selectors.projects import get_project_for
from training.models import ModelVersion, Run, Try
from training.pages.curves import latest_of, run_charts, series_of, use_charts
from training.pages.estimates import estimate_content
from training.pages.form_words import TABS
from training.pages.forms import TrainForm, initial_of
from training.pages.older import MAX_ID, newest
from training.pages.report import report_figures, report_parts
from training.pages.sampled import asked_start, sampled_part
from training.pages.states import colour_of, state_of_member
from training.pages.watching import asked_number, asked_steps, samples_part, spent
from training.recipes.configs import RECIPES, describe
from training.selectors import (
    accuracy_of,
    engineered_projects,
    family_of,
    get_run_for,
    health_of,
    latest_metrics,
    runs_for,
    seconds_left,
    trainable_snapshots,
)
from training.selectors_curves import curves_since
from training.selectors_use import members_of, with_time_worked
from training.services.models import KIND_OF_MODEL
from training.services.run_settings import EVALUATE_POLICY, STARTABLE, recipe_of_run
from training.services.runs import cancel_run, resume_run, start_run


@require_safe
@page
def runs(request: HttpRequest) -> HttpResponse:
    """The runs of the visitor's projects, the newest first; tries only with ``?tries=1``, and then nothing else."""
    user, tries = visitor(request), request.GET.get("tries") == "1"
    found, older = newest(with_time_worked(runs_for(user)).filter(tried__isnull=not tries), request)
    context = {
        "tries": tries,
        "rows": [{"run": run, "colour": colour_of(run), **spent(run)} for run in found],
        "older": older,
        "projects": list(engineered_projects(user)),
    }
    return render(request, "training/runs.html", context)


@require_safe
@page
def run(request: HttpRequest, run_id: int) -> HttpResponse:
    """One run: what it is, how far, whether it is well, what came out."""
    found = get_run_for(visitor(request), run_id)
    content = {
        **_live(found, start=asked_start(request)),
        "settings": _settings_of(found),
        "samples": samples_part(found, steps=asked_steps(request)),
        "shows_use": found.use.exists() or not found.is_finished,
        "use_charts": use_charts(),
    }
    return render(request, "training/run.html", content)


@require_safe
@page_data  # a log-in page must not land in the middle of the run's page
def run_live(request: HttpRequest, run_id: int) -> HttpResponse:
    """The parts of the run's page that move; 204 when they are what the page has already."""
    content = _live(get_run_for(visitor(request), run_id))
    if request.GET.get("seen") == content["seen"]:
        return HttpResponse(status=204)
    return render(request, "training/_run_live.html", {**content, "out_of_band": True})


@require_safe
@page_data
def run_curves(request: HttpRequest, run_id: int) -> HttpResponse:
    """What the run's curves gained after ``?since_step=``; all of them where that no longer fits."""
    found = get_run_for(visitor(request), run_id)
    curves = curves_since(
        found,
        series=series_of(found.kind),
        since_step=asked_number(request, "since_step") or 0,
        seen_attempt=asked_number(request, "attempt"),
    )
    return JsonResponse({"finished": found.is_finished, **asdict(curves)})


@require_http_methods(["GET", "HEAD", "POST"])
@page
def cancel(request: HttpRequest, run_id: int) -> HttpResponse:
    """Asks whether to cancel; cancels on POST."""
    found = get_run_for(visitor(request), run_id)
    if request.method != "POST":
        return render(request, "training/cancel.html", {"run": found})
    try:
        cancelled = cancel_run(found)
    except Refused as refused:
        messages.error(request, refused.message)
    else:
        messages.success(
            request, _("The run is being stopped.") if cancelled.is_active else _("The run was cancelled.")
        )
    return redirect(found)


@require_POST
@page
def resume(request: HttpRequest, run_id: int) -> HttpResponse:
    """Queues a failed or cancelled run again."""
    found = get_run_for(visitor(request), run_id)
    try:
        resume_run(found)
    except Refused as refused:
        messages.error(request, refused.message)
    else:
        messages.success(request, _("The run is queued and goes on from its last checkpoint."))
    return redirect(found)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def train(request: HttpRequest, slug: str) -> HttpResponse:
    """The form that starts a run of ``?kind=``, a kind or an evaluation's recipe; a good one leads to its run's page.

    ``?clone=ID`` fills it in as that run was started; the button ``do=fill`` with a preset, ``do=estimate`` tells what
    the run would need. Neither starts anything.
    """
    project = get_project_for(visitor(request), slug, engineer=True)
    recipe, initial = _asked_for(request, project)
    given = request.POST if request.method == "POST" else None
    form = TrainForm(given, project=project, recipe=recipe, initial=initial)
    asked = request.POST.get("do", "start")
    if form.is_bound and asked == "fill":
        form = form.filled_in()
    elif form.is_bound and asked != "estimate" and form.is_valid():
        try:
            origin = _cloned(request, project)
            return redirect(
                start_run(project=project, started_by=visitor(request), cloned_from=origin, **form.chosen())
            )
        except Invalid as refused:
            form.add_refusal(refused.message, refused.fields)
    context = {
        "project": project,
        "form": form,
        **estimate_content(form),
        "recipe": recipe,
        "title": TABS[recipe][1],
        "about": TABS[recipe][2],
        "tabs": [{"recipe": one, "name": words[0]} for one, words in TABS.items()],
        "has_snapshots": trainable_snapshots(project).exists(),
    }
    return render(request, "training/train.html", context, status=422 if form.errors else 200)


@require_POST
@page_data  # a log-in page must not land in the middle of the form
def estimate(request: HttpRequest, slug: str) -> HttpResponse:
    """What the run of a form would need, for the form's page; as much of it as can be told from what was filled in."""
    project = get_project_for(visitor(request), slug, engineer=True)
    recipe, _initial = _asked_for(request, project)
    form = TrainForm(request.POST, project=project, recipe=recipe)
    return render(request, "training/_estimate.html", {"project": project, "recipe": recipe, **estimate_content(form)})


def _asked_for(request: HttpRequest, project: Project) -> tuple[str, dict[str, Any]]:
    """Which recipe is to be started, and what the form shows at first."""
    if (cloned := _cloned(request, project)) is not None:
        return recipe_of_run(cloned), initial_of(cloned)
    asked = request.GET.get("kind", Run.Kind.REWARD)
    recipe = EVALUATE_POLICY if asked == Run.Kind.EVALUATE else asked
    if recipe not in TABS:
        raise NotFound(_("There is no such kind of run."))
    return recipe, {name: request.GET.get(name) for name in ("snapshot", "base_model") if name in request.GET}


def _cloned(request: HttpRequest, project: Project) -> Run | None:
    """The run of ``?clone=ID``, of the same project; None where none is named."""
    number = request.GET.get("clone", "")
    if not number:
        return None
    if number.isascii() and number.isdecimal() and int(number[:20]) <= MAX_ID:
        cloned = get_run_for(visitor(request), int(number))
        if cloned.project_id == project.pk and cloned.kind in STARTABLE:
            return cloned
    raise NotFound(_("There is no such run."))


def _live(run: Run, *, start: int = 0) -> dict[str, Any]:
    """What moves on a run's page, and `seen`, which changes when something of it does.

    Args:
        start: the first prompt of a sampling run's table.
    """
    health = health_of(run)
    content: dict[str, Any] = {
        "run": run,
        "tried": Try.objects.filter(pk=run.pk).select_related("run__project").first(),
        "colour": colour_of(run),
        "health": health,
        "left": seconds_left(run),
        "latest": latest_metrics(run),
        "latest_shown": latest_of(run.kind),
        "charts": run_charts(run),
        "attempts": list(run.attempts.order_by("number")),
        "members": [
            {"member": one, "state": state_of_member(one)} for one in (members_of(run) if run.nodes > 1 else [])
        ],
        **spent(run),
        "inputs": list(run.inputs.select_related("version")),
        "family": [{"run": one, "colour": colour_of(one)} for one in family_of(run)],
        "model": ModelVersion.objects.filter(run=run).first(),
        "snapshot_withdrawn": run.snapshot is not None and run.snapshot.state == Snapshot.State.WITHDRAWN,
        "accuracy": accuracy_of(run.report),
        "figures": report_figures(run.report),
        # A run that makes a model has its report on the model's page.
        "report_parts": [] if run.kind in KIND_OF_MODEL else report_parts(run.report),
        "sampled": sampled_part(run, start=start),
    }
    moving = [run.state, run.step, run.total_steps, run.reason, run.log_tail, run.attempt, run.worker, health.sentence]
    moving += [
        content["latest"],
        content["left"],
        run.trackers,
        [(one["member"].worker, one["state"]) for one in content["members"]],
        [(one.number, one.outcome, one.from_step) for one in content["attempts"]],
        [(one["run"].pk, one["run"].state, one["run"].step) for one in content["family"]],
    ]
    content["seen"] = hashlib.sha256(json.dumps(moving, default=str).encode()).hexdigest()[:16]
    return content


def _settings_of(run: Run) -> list[dict[str, Any]]:
    """The run's settings with their help, those that differ from the defaults first."""
    fields = {field.name: field for field in describe(RECIPES[recipe_of_run(run)])}
    rows = [
        {
            "name": name,
            "value": value,
            "unit": fields[name].unit if name in fields else "",
            "help": fields[name].help if name in fields else "",
            "changed": name in fields and value != fields[name].default,
        }
        for name, value in run.config.items()
    ]
    return sorted(rows, key=lambda row: not row["changed"])
