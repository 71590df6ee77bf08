"""The ranking page: an empty shell that changes nothing, and the few addresses its script calls besides the API."""

import uuid
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_POST, require_safe

from annotate.errors import Invalid
from annotate.interchange.records import RecordError, parse_json
from annotate.models import Project, Role, Skip, Slot, TaskFlag, User
from annotate.pages.access import page, page_data, visitor
from annotate.pages.rendering import count_words, render_text
from annotate.selectors.leases import lease_content
from annotate.selectors.progress import own_progress, project_progress
from annotate.selectors.projects import current_version, get_project_for
from annotate.services.people import set_single_key_shortcuts
from annotate.services.queue import flag_task, next_leases

#: The task on the page and one more, so that the next appears at once.
AHEAD = 2
LETTERS = "ABCDEFGHI"
#: Longer responses start folded.
FOLD_FROM_CHARACTERS = 6_000
FLAG_WORDS = {
    TaskFlag.Kind.UNCLEAR: "The prompt is unclear or broken",
    TaskFlag.Kind.UNSAFE: "It is unsafe: nobody should get it until you have looked",
    TaskFlag.Kind.EXPERT: "It needs an expert",
}


@require_safe
@ensure_csrf_cookie
@page
def rank(request: HttpRequest, slug: str) -> HttpResponse:
    """The shell of the workbench. Tasks are fetched by its script, so looking at the page leases nothing."""
    project = get_project_for(visitor(request), slug, role=Role.ANNOTATOR)
    version = current_version(project)
    context = {
        "project": project,
        "version": version,
        "guidelines": render_text(version.guidelines),
        "skip_reasons": Skip.Reason.choices,
        "flag_kinds": FLAG_WORDS.items(),
    }
    return render(request, "annotate/rank.html", context)


@require_POST
@page_data
def rank_next(request: HttpRequest, slug: str) -> HttpResponse:
    """The visitor's open leases and new ones, two in all, each with its cards as HTML; and how far everybody is."""
    user = visitor(request)
    project = get_project_for(user, slug, role=Role.ANNOTATOR)
    slots = next_leases(project=project, annotator=user, count=min(AHEAD, project.open_lease_limit))
    tasks = [task_data(slot) for slot in slots]
    return JsonResponse({"tasks": tasks, "progress": progress_data(project, user=user)})


@require_POST
@page_data
def rank_flag(request: HttpRequest, slug: str, lease: uuid.UUID) -> HttpResponse:
    """Asks the manager to look at the task; the visitor keeps it."""
    user = visitor(request)
    get_project_for(user, slug, role=Role.ANNOTATOR)
    body = _body(request)
    flag_task(lease_id=lease, annotator=user, kind=str(body.get("kind", "")), note=str(body.get("note", "")))
    return JsonResponse({})


@require_POST
@page_data
def shortcuts(request: HttpRequest) -> HttpResponse:
    """Switches the visitor's single-key shortcuts on or off."""
    on = _body(request).get("on")
    if not isinstance(on, bool):
        raise Invalid("Say on or off.", fields={"on": "true or false."})
    set_single_key_shortcuts(user=visitor(request), on=on)
    return JsonResponse({"on": on})


def task_data(slot: Slot) -> dict[str, Any]:
    """What the page's script needs of a leased slot: ids, rules, draft, and the cards as HTML."""
    content = lease_content(slot)
    return {
        "lease": content["id"],
        "task": content["task"],
        "rules": content["rules"],
        "order": [response["id"] for response in content["responses"]],
        "draft": content["draft"],
        "html": render_to_string("annotate/_task.html", _shown(content)),
    }


def _shown(content: dict[str, Any]) -> dict[str, Any]:
    turns = [_turn(message) for message in content["prompt"]]
    responses = [
        _card(response, letter=letter) for response, letter in zip(content["responses"], LETTERS, strict=False)
    ]
    return {"turns": turns, "responses": responses}


def _turn(message: dict[str, Any]) -> dict[str, Any]:
    return {"role": message["role"], "html": render_text(message["content"])}


def _card(response: dict[str, Any], *, letter: str) -> dict[str, Any]:
    text, thinking = response["text"], response["thinking"]
    return {
        **response,
        "letter": letter,
        "html": render_text(text),
        "words": count_words(text),
        "folded": len(text) > FOLD_FROM_CHARACTERS,
        "thinking_html": render_text(thinking) if thinking else None,
        "thinking_words": count_words(thinking) if thinking else 0,
    }


def progress_data(project: Project, *, user: User) -> dict[str, Any]:
    """Rankings wanted and done by everybody, and such words as “12 today · 48 in all · 150 of 600 by everybody”."""
    own = own_progress(user=user, projects=[project])[project.pk]
    overall = project_progress([project])[project.pk]
    words = f"{own.today:,} today · {own.done:,} in all · {overall.done:,} of {overall.wanted:,} by everybody"
    return {"wanted": overall.wanted, "done": overall.done, "words": words}


def _body(request: HttpRequest) -> dict[str, Any]:
    try:
        body = parse_json(request.body.decode())
    except (UnicodeDecodeError, RecordError):
        body = None
    if not isinstance(body, dict):
        raise Invalid("A JSON object is wanted.")
    return body
