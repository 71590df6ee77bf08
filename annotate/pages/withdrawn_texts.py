"""Withdrawing a text wherever it stands, such as a name or an address: searched for, looked at, chosen, withdrawn.

The text comes in bodies alone, never in an address: addresses stand in logs and in the history of browsers.
"""

import time
from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_http_methods

from annotate.errors import Conflict, Invalid
from annotate.models import Project, Role
from annotate.pages.access import page, visitor
from annotate.pages.overview import rights_of
from annotate.pages.withdrawals import ReasonForm, amounts_of, log_of
from annotate.selectors.excerpts import excerpts_of, tasks_of
from annotate.selectors.phrases import MAX_CHARACTERS, MIN_CHARACTERS, Found, Place, find_phrase, found_again
from annotate.selectors.projects import get_project_for, membership_of
from annotate.selectors.withdrawals import reach_of_found
from annotate.services.withdrawals import check_reason, withdraw_found

#: So many are shown at once, and so long a request looks for them.
PAGE, LOOK_SECONDS = 20, 2.0
#: How long a request withdraws before it asks whether to go on.
SECONDS = 5.0

KINDS = {
    "prompt": gettext_lazy("Prompt"),
    "response": gettext_lazy("Response"),
    "demonstration": gettext_lazy("Demonstration"),
    "ranking": gettext_lazy("Ranking"),
    "skip_note": gettext_lazy("Note on a skip"),
    "flag_note": gettext_lazy("Note on a flag"),
    "review_note": gettext_lazy("Note on a review"),
    "draft": gettext_lazy("Draft"),
}
#: Columns whose name says more than the kind of thing does.
COLUMNS = {
    "answer": gettext_lazy("in the checkable answer"),
    "tests": gettext_lazy("in the tests"),
    "tags": gettext_lazy("in the tags"),
    "extra": gettext_lazy("in other fields of the import"),
    "thinking": gettext_lazy("in the thinking"),
    "rationale": gettext_lazy("in the note"),
    "rewrite_text": gettext_lazy("in the edited version"),
}


class TextForm(forms.Form):
    """What has to go."""

    text = forms.CharField(
        label=gettext_lazy("Text that has to go"),
        min_length=MIN_CHARACTERS,
        max_length=MAX_CHARACTERS,
        help_text=gettext_lazy("Exactly as it stands, capitals and all: a name, an address, a number."),
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "dir": "auto"}),
    )


@require_http_methods(["GET", "HEAD", "POST"])
@page
def withdraw_text(request: HttpRequest, slug: str) -> HttpResponse:
    """Searches; shows what the chosen would take with it; withdraws it and searches again."""
    project = get_project_for(visitor(request), slug, role=Role.MANAGER)
    form = TextForm(request.POST if request.method == "POST" else None)
    if request.method != "POST" or not form.is_valid():
        return _show(request, project, "withdraw_text", {"form": form, "log": log_of(project)})
    step = {"look": _look, "withdraw": _withdraw}.get(request.POST.get("step", ""), _search)
    return step(request, project, form)


def _search(request: HttpRequest, project: Project, form: TextForm, *, begin: bool = False) -> HttpResponse:
    """The next places, from where the page before ended."""
    phrase, cursor = form.cleaned_data["text"], "" if begin else request.POST.get("cursor", "")
    try:
        found, place = _find(project, phrase, Place.decode(cursor) if cursor else Place())
    except Invalid as refused:
        form.add_error(None, refused.message)
        return _show(request, project, "withdraw_text", {"form": form, "log": log_of(project)})
    context = {
        "form": form,
        "searched": True,
        "phrase": phrase,
        "cursor": cursor,
        "found": _shown(project, phrase, found),
        "next": place.encode() if place else "",
        "log": log_of(project),
    }
    return _show(request, project, "withdraw_text", context)


def _look(request: HttpRequest, project: Project, form: TextForm) -> HttpResponse:
    """What withdrawing the chosen would reach, and why it is asked for."""
    found = _chosen(request, project, form)
    if found:
        return _ask(request, project, form, found, ReasonForm())
    messages.error(request, _("Choose what is to go."))
    return _search(request, project, form)


def _withdraw(request: HttpRequest, project: Project, form: TextForm) -> HttpResponse:
    """Withdraws the chosen one by one; what is left when time is up is asked about again."""
    found, reasons = _chosen(request, project, form), ReasonForm(request.POST)
    try:
        if reasons.is_valid():
            check_reason(reasons.cleaned_data["reason"], without=form.cleaned_data["text"])
    except Invalid as refused:
        reasons.add_error("reason", refused.fields["reason"])
    if reasons.errors:
        return _ask(request, project, form, found, reasons)
    until, left = time.monotonic() + SECONDS, []
    for one in found:
        try:
            if time.monotonic() > until:
                left.append(one)
            else:
                withdraw_found(project=project, found=one, by=visitor(request), reason=reasons.cleaned_data["reason"])
        except Conflict:  # somebody is handing a task of it in or back
            left.append(one)
    _say_done(request, done=len(found) - len(left), left=len(left))
    return _ask(request, project, form, left, reasons) if left else _search(request, project, form, begin=True)


def _say_done(request: HttpRequest, *, done: int, left: int) -> None:
    words = ngettext("%(count)d thing is withdrawn.", "%(count)d things are withdrawn.", done) % {"count": done}
    if not left:
        messages.success(request, words if done else _("What you chose is gone already."))
        return
    more = ngettext("%(count)d is left: go on with it here.", "%(count)d are left: go on with them here.", left)
    messages.warning(request, f"{words} {more % {'count': left}}")


def _ask(
    request: HttpRequest, project: Project, form: TextForm, found: Sequence[Found], reasons: ReasonForm
) -> HttpResponse:
    phrase, reach = form.cleaned_data["text"], reach_of_found(project, found)
    context = {
        "form": form,
        "phrase": phrase,
        "cursor": request.POST.get("cursor", ""),
        "found": _shown(project, phrase, found),
        "kinds": {one.kind for one in found},
        "reasons": reasons,
        "reach": reach,
        "amounts": amounts_of(reach.counts),
    }
    return _show(request, project, "withdraw_text_asked", context)


def _find(project: Project, phrase: str, place: Place | None) -> tuple[list[Found], Place | None]:
    """A page of what holds it, or what a request has time to look through."""
    found: list[Found] = []
    until = time.monotonic() + LOOK_SECONDS
    while place is not None and len(found) < PAGE and time.monotonic() < until:
        more, place = find_phrase(project, phrase, at=place, limit=PAGE - len(found))
        found += more
    return found, place


def _chosen(request: HttpRequest, project: Project, form: TextForm) -> list[Found]:
    """What was ticked, or all that the page showed, as far as it is this project's and still holds the text."""
    names = request.POST.getlist("shown" if "all" in request.POST else "found")
    parts = [name.partition(":") for name in names]
    ids = [(kind, int(pk)) for kind, _colon, pk in parts if pk.isascii() and pk.isdecimal() and len(pk) < 19]
    return found_again(project, form.cleaned_data["text"], ids)


def _shown(project: Project, phrase: str, found: Sequence[Found]) -> list[dict[str, Any]]:
    """Each with its kind in words, its places, and the page on which it stands."""
    excerpts, tasks = excerpts_of(project, phrase, found), tasks_of(found)
    return [
        {
            "value": f"{one.kind}:{one.id}",
            "id": one.id,
            "kind": KINDS[one.kind],
            "annotator": one.annotator,
            "task": one.task or tasks.get(one.prompt or 0),
            "places": [(COLUMNS.get(place.column, ""), place) for place in excerpts.get((one.kind, one.id), ())],
        }
        for one in found
    ]


def _show(request: HttpRequest, project: Project, template: str, context: dict[str, Any]) -> HttpResponse:
    rights = rights_of(membership_of(user=visitor(request), project=project))
    wrong = context["form"].errors or ("reasons" in context and context["reasons"].errors)
    shown = {**rights, "project": project, "tab": "tasks", **context}
    return render(request, f"annotate/{template}.html", shown, status=422 if wrong else 200)
