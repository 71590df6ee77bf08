"""The ranking page: an empty shell that changes nothing, and the addresses its script calls besides the API."""

import hashlib
import json
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_POST, require_safe

from annotate.differences import difference
from annotate.errors import Conflict, Invalid, NotFound
from annotate.models import Project, Ranking, Role, Skip, TaskFlag, User
from annotate.pages.access import page, page_data, visitor
from annotate.pages.answers import Submission, id_from, lease_ids, submission_from
from annotate.pages.bodies import json_body
from annotate.pages.cards import LETTERS, tasks_data
from annotate.pages.rendering import render_text
from annotate.pages.words import workbench_words
from annotate.selectors.guidelines import Guidelines, guidelines_for
from annotate.selectors.leases import (
    own_lease,
    past_lease_content,
    response_texts,
    revision_draft,
    stranded_content,
)
from annotate.selectors.progress import Standing, standing_of
from annotate.selectors.projects import current_version, get_project_for
from annotate.selectors.rankings import answer_content, own_answer, own_answered
from annotate.selectors.reviews import RETURNED, review_of
from annotate.services.guidelines import record_reading
from annotate.services.idempotency import Answer, answer_once
from annotate.services.queue import next_unseen_leases
from annotate.services.rankings import take_ranking, take_revision

#: The task on the page and one more, so that the next appears at once.
AHEAD = 2
MAX_KEY_CHARACTERS = 200
FLAG_WORDS = {
    TaskFlag.Kind.UNCLEAR: gettext_lazy("The prompt is unclear or broken"),
    TaskFlag.Kind.UNSAFE: gettext_lazy("It is unsafe: nobody should get it until you have looked"),
    TaskFlag.Kind.EXPERT: gettext_lazy("It needs an expert"),
}


@require_safe
@ensure_csrf_cookie
@page
def rank(request: HttpRequest, slug: str) -> HttpResponse:
    """The shell of the workbench. Tasks are fetched by its script, so looking at the page leases nothing."""
    user = visitor(request)
    project = get_project_for(user, slug, role=Role.ANNOTATOR)
    version = current_version(project)
    context = {
        "project": project,
        "version": version,
        "guidelines": render_text(version.guidelines),
        "guidelines_read": guidelines_for(user, project).read,
        "skip_reasons": Skip.Reason.choices,
        "flag_kinds": FLAG_WORDS.items(),
        "words": workbench_words(),
        "again": id_from(request.GET.get("again", "")),
    }
    return render(request, "annotate/rank.html", context)


@require_POST
@page_data
def rank_next(request: HttpRequest, slug: str) -> HttpResponse:
    """The visitor's open leases and new ones, two in all, each with its cards as HTML; and how far everybody is.

    Of the leases in `have` only the id comes again; the guidelines come if they are not those of version `guidelines`.
    A page that has nothing yet first gets what the visitor began and lost the lease of, marked `expired`. Of a closed
    project come what was begun and the open leases alone, if any, marked `closed`.
    """
    user = visitor(request)
    project = get_project_for(user, slug, role=Role.ANNOTATOR)
    body = json_body(request) if request.body else {}
    found = _following(project, user=user, body=body)
    if not lease_ids(body.get("have")):
        found["tasks"] = _stranded(project, user=user) + found["tasks"]
    return JsonResponse(found)


@require_POST
@page_data
def rank_submit(request: HttpRequest, slug: str) -> HttpResponse:
    """Writes the visitor's answer, or a revision of one, and hands out what is next.

    The header Idempotency-Key makes it safe to repeat: the answer is written once, and what is next is fresh. A closed
    project takes the answers that were begun, and hands out no more than what the visitor has begun.
    """
    user = visitor(request)
    project = get_project_for(user, slug, role=Role.ANNOTATOR)
    body = json_body(request)
    submission = submission_from(body)
    said = {name: value for name, value in body.items() if name not in {"have", "guidelines"}}
    written = answer_once(
        user=user,
        endpoint=request.path,
        key=_key(request),
        body_sha256=hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest(),
        act=lambda: Answer(200, _write(submission, project=project, user=user)),
    )
    return JsonResponse({"ranking": written.body} | _following(project, user=user, body=body))


def _write(submission: Submission, *, project: Project, user: User) -> dict[str, Any]:
    """Writes the answer in the transaction of answer_once."""
    common: dict[str, Any] = {
        "project": project,
        "annotator": user,
        "answer": submission.answer,
        "seconds": submission.seconds,
        "source": Ranking.Source.PAGE,
    }
    if submission.lease is not None:
        ranking = take_ranking(lease_id=submission.lease, **common)
    else:
        assert submission.revises is not None
        ranking = take_revision(ranking_id=submission.revises, supersedes=submission.revises, **common)
    return {"id": str(ranking.pk), "revision": ranking.revision, "counted": ranking.counted}


@require_POST
@page_data
def rank_back(request: HttpRequest, slug: str) -> HttpResponse:
    """The visitor's own last answer, the one before the ranking `before`, or that of `ranking`: to look at and to
    revise, with the note of whoever gave it back."""
    user = visitor(request)
    project = get_project_for(user, slug, role=Role.ANNOTATOR)
    body = json_body(request) if request.body else {}
    named = {name: body[name] for name in ("before", "ranking") if body.get(name) is not None}
    for name, given in named.items():
        if (known := id_from(given)) is None:
            raise Invalid(_("Name a ranking."), fields={name: "The id of a ranking, or null."})
        named[name] = known
    if "ranking" in named:
        ranking = own_answer(user=user, project=project, ranking=named["ranking"])
    else:
        ranking = own_answered(user=user, project=project, before=named.get("before"))
    return JsonResponse({"task": _answered(ranking) if ranking else None})


def _answered(ranking: Ranking) -> dict[str, Any]:
    assert ranking.lease is not None
    content = past_lease_content(ranking.lease) | {"draft": revision_draft(ranking)}
    (task,) = tasks_data([content])
    review = review_of(ranking)
    if review is not None and review.verdict == RETURNED and review.note:
        task["html"] = render_to_string("annotate/_given_back.html", {"note": review.note}) + task["html"]
    return task | {"revises": str(ranking.pk), "answer": answer_content(ranking)}


@require_safe
@page_data
def rank_difference(request: HttpRequest, slug: str) -> HttpResponse:
    """How two responses of a task differ, as a fragment of HTML, for whoever has or had the task.

    Without `a` it is the first response, without `b` the first other one.
    """
    user = visitor(request)
    project = get_project_for(user, slug, role=Role.ANNOTATOR)
    leases = lease_ids([request.GET.get("lease")])
    lease = own_lease(user=user, project=project, lease_id=leases[0]) if leases else None
    if lease is None:
        raise NotFound("There is no such lease.")
    letters = dict(zip(map(str, lease.presented_order), LETTERS, strict=False))
    one = request.GET.get("a") or next(iter(letters))
    other = request.GET.get("b") or next(name for name in letters if name != one)
    if one not in letters or other not in letters:
        raise NotFound("There is no such response in this task.")
    texts = response_texts(lease)
    context = {"found": difference(texts[one], texts[other]), "a": letters[one], "b": letters[other]}
    chosen = {"project": project, "lease": lease, "letters": letters, "one": one, "other": other}
    return render(request, "annotate/_difference.html", context | chosen)


@require_POST
@page_data
def rank_read(request: HttpRequest, slug: str) -> HttpResponse:
    """Keeps that the visitor has read the guidelines of a version."""
    user = visitor(request)
    project = get_project_for(user, slug, role=Role.ANNOTATOR)
    number = json_body(request).get("version")
    if type(number) is not int:
        raise Invalid(_("Say which version."), fields={"version": "The number of a version."})
    version = record_reading(project=project, user=user, number=number)
    return JsonResponse({"version": version.number, "read": True})


# --- what is next, and how far ---------------------------------------------------------------------------------------


def _handed_out(project: Project, *, user: User, body: dict[str, Any]) -> dict[str, Any]:
    """The visitor's tasks, the one on the page first, with how far everybody is and the guidelines."""
    leases, unseen = next_unseen_leases(
        project=project,
        annotator=user,
        count=min(AHEAD, project.open_lease_limit),
        have=set(lease_ids(body.get("have"))),
    )
    new = {task["lease"]: task for task in tasks_data(unseen)}
    tasks = [new.get(str(lease), {"lease": str(lease)}) for lease in leases]
    closed = {"closed": True} if project.archived_at is not None else {}
    return {"tasks": tasks} | closed | _standing(project, user=user, body=body)


def _stranded(project: Project, *, user: User) -> list[dict[str, Any]]:
    """At most one task: an answer to it is taken as a late one."""
    content = stranded_content(user=user, project=project)
    return [task | {"expired": True} for task in tasks_data([content])] if content else []


def _following(project: Project, *, user: User, body: dict[str, Any]) -> dict[str, Any]:
    """As _handed_out, beside something else: that a closed project has nothing more is no refusal."""
    try:
        return _handed_out(project, user=user, body=body)
    except Conflict as refused:
        if refused.code != "project_closed":
            raise
    return {"tasks": [], "closed": True} | _standing(project, user=user, body=body)


def _standing(project: Project, *, user: User, body: dict[str, Any]) -> dict[str, Any]:
    now = standing_of(user=user, project=project)
    return {"progress": progress_data(now), "guidelines": _guidelines(now.guidelines, seen=body.get("guidelines"))}


def _guidelines(now: Guidelines, *, seen: Any) -> dict[str, Any]:
    """The version in force and whether the visitor has read it; the text unless the page has just that version."""
    found: dict[str, Any] = {"version": now.number, "read": now.read}
    return found if seen == now.number else found | {"html": render_text(now.text)}


def progress_data(now: Standing) -> dict[str, Any]:
    """Rankings wanted and done by everybody, the visitor's own, and all of it in words."""
    counts = {"today": now.today, "own": now.own, "done": now.done, "wanted": now.wanted}
    numbers = {name: _number(value) for name, value in counts.items()}
    return {
        "wanted": now.wanted,
        "done": now.done,
        "words": _progress_words(numbers, median=now.median_seconds),
        "own": {"today": now.today, "done": now.own, "median_seconds": now.median_seconds},
    }


def _progress_words(numbers: dict[str, str], *, median: float | None) -> str:
    if median is None:
        return _("%(today)s today · %(own)s in all · %(done)s of %(wanted)s by everybody") % numbers
    told = numbers | {"median": time_in_words(median)}
    return _("%(today)s today · %(own)s in all · median %(median)s · %(done)s of %(wanted)s by everybody") % told


def time_in_words(seconds: float) -> str:
    """A span such as “40 s”, “1 min 40 s” or “1 h 5 min”, in the language of the request."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    if whole < 60:
        return _("%(seconds)d s") % {"seconds": whole}
    if whole < 3600:
        return _("%(minutes)d min %(seconds)d s") % {"minutes": minutes, "seconds": rest}
    return _("%(hours)d h %(minutes)d min") % {"hours": minutes // 60, "minutes": minutes % 60}


def _number(value: int) -> str:
    return number_format(value, use_l10n=True, force_grouping=True)


# --- requests --------------------------------------------------------------------------------------------------------


def _key(request: HttpRequest) -> str:
    key = request.headers.get("Idempotency-Key", "")
    if not 1 <= len(key) <= MAX_KEY_CHARACTERS or not (key.isascii() and key.isprintable()):
        raise Invalid(
            _("Send an Idempotency-Key, so that nothing is written twice."), fields={"Idempotency-Key": "ASCII."}
        )
    return key
