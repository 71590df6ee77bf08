"""Trying models out: a conversation that one or two of them answer while one watches. For engineers of the project."""

import hashlib
import json
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from annotate.errors import Refused
from annotate.models import Project, User
from annotate.pages.access import page, page_data, visitor
from annotate.selectors.projects import get_project_for
from training.models import RunInput, Try
from training.pages.older import MAX_ID
from training.pages.sampled import told
from training.pages.try_forms import ROLES, TryForm, initial_of_try, turns_in, turns_of
from training.selectors_tries import (
    InLine,
    columns_of,
    get_try_for,
    is_sent,
    line_of,
    listed,
    models_tried,
    prompt_in,
    tries_of,
    why_it_failed,
)
from training.services.sending import send_responses
from training.services.tries import cancel_try, mark_seen, move_to_cpu, start_try

SHOWN = 20
MOST_RESPONSES = 9  # of one ranking task


@require_http_methods(["GET", "HEAD", "POST"])
@page
def tries(request: HttpRequest, slug: str) -> HttpResponse:
    """The form of a try, and the project's last ones. ``?model=``, ``?reward_model=`` and ``?from=ID`` fill it in."""
    user = visitor(request)
    project = get_project_for(user, slug, engineer=True)
    if request.method != "POST":
        return _form_page(request, project, _asked_for(request, project))
    if request.POST.get("do") in {"more", "take"}:
        return _form_page(request, project, _changed(request, project))
    form = TryForm(request.POST, project=project)
    if form.is_valid():
        try:
            return redirect(start_try(form.wish(), project=project, started_by=user))
        except Refused as refused:
            form.add_refusal(refused.message, refused.fields)
    return _form_page(request, project, form, status=422)


@require_safe
@page
def one_try(request: HttpRequest, slug: str, run_id: int) -> HttpResponse:
    """What the models say, while they say it and afterwards."""
    tried = get_try_for(visitor(request), slug, run_id)
    mark_seen(tried)
    form = TryForm(project=tried.run.project, turns=tried.messages, initial=initial_of_try(tried))
    asked = [(ROLES.get(message["role"], message["role"]), message) for message in tried.messages]
    return render(request, "training/try.html", {**_live(tried, visitor(request)), "form": form, "asked": asked})


@require_safe
@page_data  # a log-in page must not land in the middle of the page
def try_live(request: HttpRequest, slug: str, run_id: int) -> HttpResponse:
    """The part of a try's page that moves with its state; 204 when it is what the page has already."""
    tried = get_try_for(visitor(request), slug, run_id)
    mark_seen(tried)
    content = _live(tried, visitor(request))
    if request.GET.get("seen") == content["seen"]:
        return HttpResponse(status=204)
    return render(request, "training/_try_live.html", content)


@require_safe
@page_data
def try_pieces(request: HttpRequest, slug: str, run_id: int) -> HttpResponse:
    """The text that came after the piece ``?since=``, for the page's script."""
    tried = get_try_for(visitor(request), slug, run_id)
    given = request.GET.get("since", "0")
    since = int(given) if given.isascii() and given.isdecimal() and len(given) < 10 else 0
    found = listed(tried.run, since=since)
    pieces = [[piece.model, piece.sample, piece.text] for piece in found.pieces]
    return JsonResponse(
        {"attempt": tried.run.attempt, "next": found.next, "pieces": pieces, "over": tried.run.is_finished}
    )


@require_POST
@page
def to_cpu(request: HttpRequest, slug: str, run_id: int) -> HttpResponse:
    """Has a waiting try answered by a worker of processors."""
    tried = get_try_for(visitor(request), slug, run_id)
    try:
        move_to_cpu(tried)
    except Refused as refused:
        messages.error(request, refused.message)
    return redirect(tried)


@require_POST
@page
def cancel(request: HttpRequest, slug: str, run_id: int) -> HttpResponse:
    """Stops a try."""
    tried = get_try_for(visitor(request), slug, run_id)
    try:
        cancel_try(tried)
    except Refused as refused:
        messages.error(request, refused.message)
    return redirect(tried)


@require_POST
@page
def send(request: HttpRequest, slug: str, run_id: int) -> HttpResponse:
    """Makes one ranking task of the responses."""
    tried = get_try_for(visitor(request), slug, run_id)
    try:
        taken = send_responses(tried.run, by=visitor(request))
    except Refused as refused:
        messages.error(request, refused.message)
    else:
        (messages.success if taken.made else messages.warning)(request, told(taken))
    return redirect(tried)


def _form_page(request: HttpRequest, project: Project, form: TryForm, *, status: int = 200) -> HttpResponse:
    rows = [{"try": tried, "models": models_tried(tried.run)} for tried in tries_of(project)[:SHOWN]]
    return render(request, "training/tries.html", {"project": project, "form": form, "rows": rows}, status=status)


def _asked_for(request: HttpRequest, project: Project) -> TryForm:
    """The form as the address wants it filled in."""
    if (number := request.GET.get("from", "")[:20]).isdecimal() and number.isascii() and int(number) <= MAX_ID:
        tried = get_try_for(visitor(request), project.slug, int(number))
        return TryForm(project=project, turns=tried.messages, initial=initial_of_try(tried))
    names = ("model", "model_2", "reward_model")
    return TryForm(project=project, initial={name: request.GET[name] for name in names if name in request.GET})


def _changed(request: HttpRequest, project: Project) -> TryForm:
    """The form with one more message, or with a prompt of the project in place of its own."""
    initial: dict[str, Any] = {name: value for name, value in request.POST.items() if name not in {"role", "content"}}
    initial["shows_thinking"] = "shows_thinking" in request.POST
    turns = turns_in(request.POST)
    if request.POST["do"] == "take":
        chosen = request.POST.get("of_project", "")[:20]
        number = int(chosen) if chosen.isascii() and chosen.isdecimal() and int(chosen) <= MAX_ID else 0
        if (prompt := prompt_in(project, number)) is not None:
            return TryForm(project=project, turns=turns_of(prompt), initial=initial | {"prompt": prompt.pk})
        return TryForm(project=project, turns=turns, initial=initial)
    role = "assistant" if turns[-1]["role"] == "user" else "user"
    return TryForm(project=project, turns=[*turns, {"role": role, "content": ""}], initial=initial)


def _live(tried: Try, user: User) -> dict[str, Any]:
    """What moves on a try's page, and `seen`, which changes when something of it does but the text."""
    run = tried.run
    columns, following = columns_of(tried)
    line, sent = line_of(tried, user=user), is_sent(run)
    responses = len(columns) * int(run.config["samples_per_prompt"])
    moving = [run.state, run.reason, run.attempt, _shown(line), sent, tried.result is not None]
    return {
        "try": tried,
        "run": run,
        "project": run.project,
        "columns": columns,
        "next": following,
        "line": line,
        "reason": why_it_failed(run),
        "scored": any(one.role == RunInput.Role.REWARD for one in run.inputs.all()),
        "may_send": 2 <= responses <= MOST_RESPONSES,
        "sent": sent,
        "seen": hashlib.sha256(json.dumps(moving).encode()).hexdigest()[:16],
    }


def _shown(line: InLine | None) -> Any:
    """What the page says of the place in line; times to ten seconds."""
    if line is None:
        return None
    workers = [
        (one.worker, one.held and [one.held.attempt, one.held.run and one.held.run.pk], one.left and one.left // 10)
        for one in line.workers
    ]
    return [line.queue, line.place, line.cpu, workers]
