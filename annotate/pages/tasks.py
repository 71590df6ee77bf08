"""The browser of tasks: what was asked, what everybody said, and what a manager decides about it."""

from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from annotate.errors import NotFound, Refused
from annotate.models import Project, Ranking, RankingTask, Response, Role
from annotate.pages.access import page, visitor
from annotate.pages.cards import FOLD_FROM_CHARACTERS
from annotate.pages.overview import rights_of
from annotate.pages.rendering import count_words, render_texts
from annotate.pages.reviews import reviewing
from annotate.pages.told import row_context, tell
from annotate.selectors.people import members_of
from annotate.selectors.projects import get_project_for, membership_of
from annotate.selectors.task_lists import (
    CLOSED,
    DONE,
    HELD,
    OPEN,
    TaskFilter,
    browse_tasks,
    flags_of,
    get_task_for,
    history_of,
    holders_of,
    leaks_of,
    task_rows,
)
from annotate.selectors.withdrawals import reach_of_response
from annotate.services.held_tasks import close_task, release_task, reopen_task, settle_flags
from annotate.services.leaks import settle_leak
from annotate.services.withdrawals import withdraw_prompt, withdraw_ranking, withdraw_response

STATES = [
    ("", gettext_lazy("any state")),
    (str(OPEN), gettext_lazy("open")),
    (DONE, gettext_lazy("done")),
    (str(HELD), gettext_lazy("held")),
    (str(CLOSED), gettext_lazy("closed")),
]


class FilterForm(forms.Form):
    """Which tasks to list; all of it is in the address, so that a list can be passed on."""

    text = forms.CharField(label=gettext_lazy("Words of the prompt, or its id"), required=False, max_length=200)
    state = forms.ChoiceField(label=gettext_lazy("State"), choices=STATES, required=False)
    annotator = forms.ChoiceField(label=gettext_lazy("Ranked by"), required=False)
    flagged = forms.BooleanField(label=gettext_lazy("flagged"), required=False)
    leaking = forms.BooleanField(label=gettext_lazy("gives away its maker"), required=False)
    unreviewed = forms.BooleanField(label=gettext_lazy("not reviewed yet"), required=False)
    after = forms.IntegerField(required=False, min_value=0, widget=forms.HiddenInput)

    def __init__(self, data: Any, *, project: Project) -> None:
        super().__init__(data, auto_id="filter_%s")
        people = [(str(one.user_id), one.user.username) for one in members_of(project)[:500]]
        self.fields["annotator"].choices = [("", _("anybody")), *people]  # type: ignore[attr-defined]

    def wanted(self) -> TaskFilter:
        """The filter; what makes no sense is left out of it."""
        given = self.cleaned_data
        return TaskFilter(
            state=given.get("state") or "",
            flagged=bool(given.get("flagged")),
            leaking=bool(given.get("leaking")),
            unreviewed=bool(given.get("unreviewed")),
            annotator=int(given["annotator"]) if given.get("annotator") else None,
            text=(given.get("text") or "").replace("\0", "").strip(),
        )


@require_safe
@page
def tasks(request: HttpRequest, slug: str) -> HttpResponse:
    """A page of tasks, each with every ranking as its sentence."""
    user = visitor(request)
    project = get_project_for(user, slug, role=Role.REVIEWER)
    form = FilterForm(request.GET, project=project)
    form.is_valid()
    found = browse_tasks(project, form.wanted(), after=form.cleaned_data.get("after") or 0)
    kept = {name: value for name, value in form.cleaned_data.items() if value and name != "after"}
    context = {
        **rights_of(membership_of(user=user, project=project)),
        "project": project,
        "tab": "tasks",
        "form": form,
        "filtered": bool(kept),
        "rows": [row_context(row) for row in found.rows],
        "looked_at": found.looked_at,
        "next": urlencode(kept | {"after": found.after}) if found.after else "",
        "first": urlencode(kept) if form.cleaned_data.get("after") else None,
    }
    return render(request, "annotate/tasks.html", context)


@require_safe
@page
def task(request: HttpRequest, slug: str, task: int) -> HttpResponse:
    """One task: prompt, responses with letters, every revision of every answer, flags, skips, and who gives it away."""
    user = visitor(request)
    found = get_task_for(user, slug, task)
    (row,) = task_rows([found])
    asked = reviewing(request)
    # The answer to be reviewed stands first, whoever answered before.
    history = sorted(history_of(found), key=lambda said: said.ranking.pk != asked)
    context = {
        **rights_of(membership_of(user=user, project=found.project)),
        "project": found.project,
        "tab": "tasks",
        **row_context(row),
        **_shown(found, row.letters),
        "reviewing": asked,
        "history": [tell(said, letters=row.letters, whole=True) for said in history],
        "all_flags": flags_of(found),
    }
    return render(request, "annotate/task.html", context)


def _shown(task: RankingTask, letters: Any) -> dict[str, Any]:
    """Prompt and responses as HTML."""
    responses = Response.objects.in_bulk(list(letters))
    texts = [message["content"] for message in task.prompt.messages]
    texts += [text for one in responses.values() for text in (one.text, one.thinking) if text]
    html = render_texts(texts)
    phrases = {leak.response_id: leak for leak in leaks_of(task)}
    return {
        "turns": [{"role": one["role"], "html": html[one["content"]]} for one in task.prompt.messages],
        "language": task.prompt.language,
        "responses": [
            {
                "letter": letter,
                "response": responses[pk],
                "html": html.get(responses[pk].text, ""),
                "thinking_html": html.get(responses[pk].thinking or "", ""),
                "words": count_words(responses[pk].text),
                "folded": len(responses[pk].text) > FOLD_FROM_CHARACTERS,
                "same_as": [
                    other for one, other in letters.items() if one != pk and responses[one].text == responses[pk].text
                ],
                "leak": phrases.get(pk),
            }
            for pk, letter in letters.items()
        ],
    }


# --- decisions --------------------------------------------------------------------------------------------------------


@require_POST
@page
def release(request: HttpRequest, slug: str, task: int) -> HttpResponse:
    """Puts a held task back into the queue."""
    found = get_task_for(visitor(request), slug, task, role=Role.MANAGER)
    try:
        release_task(task=found, by=visitor(request))
    except Refused as refused:
        messages.error(request, refused.message)
    else:
        messages.success(request, _("Task %(task)d is back in the queue.") % {"task": task})
    return _back(request, slug, task)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def close(request: HttpRequest, slug: str, task: int) -> HttpResponse:
    """Asks first, and says who has it open; then takes a task out of the queue."""
    found = get_task_for(visitor(request), slug, task, role=Role.MANAGER)
    if request.method != "POST":
        (row,) = task_rows([found])
        back = _address_back(request.GET.get("next", ""), slug, task)
        context = {"project": found.project, **row_context(row), "holders": holders_of(found), "back": back}
        return render(request, "annotate/close_task.html", context)
    try:
        close_task(task=found, by=visitor(request))
    except Refused as refused:
        messages.error(request, refused.message)
    else:
        told = _("Task %(task)d is closed. What was ranked stays and counts; nobody is offered it any more.")
        messages.success(request, told % {"task": task})
    return _back(request, slug, task)


@require_POST
@page
def reopen(request: HttpRequest, slug: str, task: int) -> HttpResponse:
    """Puts a closed task back into the queue."""
    found = get_task_for(visitor(request), slug, task, role=Role.MANAGER)
    try:
        free = reopen_task(task=found)
    except Refused as refused:
        messages.error(request, refused.message)
    else:
        told = ngettext(
            "Task %(task)d is open again: %(count)d ranking is wanted.",
            "Task %(task)d is open again: %(count)d rankings are wanted.",
            free,
        )
        messages.success(request, told % {"task": task, "count": free})
    return _back(request, slug, task)


@require_POST
@page
def settle(request: HttpRequest, slug: str, task: int) -> HttpResponse:
    """The manager has looked at the task's flags and leaks and lets it be."""
    user = visitor(request)
    found = get_task_for(user, slug, task, role=Role.MANAGER)
    settle_flags(task=found, by=user)
    for leak in leaks_of(found):
        if leak.settled_at is None:
            settle_leak(project=found.project, leak_id=leak.pk, by=user)
    messages.success(request, _("Task %(task)d is settled.") % {"task": task})
    return _back(request, slug, task)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def withdraw_task(request: HttpRequest, slug: str, task: int) -> HttpResponse:
    """Asks first; then blanks the prompt, its responses and what was said about them."""
    found = get_task_for(visitor(request), slug, task, role=Role.MANAGER)
    if request.method == "POST":
        try:
            withdraw_prompt(prompt=found.prompt, by=visitor(request))
        except Refused as refused:
            messages.error(request, refused.message)
        else:
            messages.success(request, _("The prompt was withdrawn."))
        return redirect("task", slug, task)
    (row,) = task_rows([found])
    context = {"project": found.project, **row_context(row)}
    return render(request, "annotate/withdraw_prompt.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def withdraw_answer(request: HttpRequest, slug: str, ranking: int) -> HttpResponse:
    """Asks first; then withdraws an annotator's answer in all its revisions."""
    project = get_project_for(visitor(request), slug, role=Role.MANAGER)
    found = Ranking.objects.select_related("annotator", "project").filter(pk=ranking, project=project).first()
    if found is None:
        raise NotFound(_("There is no such ranking."))
    if request.method == "POST":
        try:
            withdraw_ranking(ranking=found, by=visitor(request))
        except Refused as refused:
            messages.error(request, refused.message)
        else:
            messages.success(request, _("The ranking was withdrawn."))
        return redirect("task", slug, found.task_id)
    (row,) = task_rows([get_task_for(visitor(request), slug, found.task_id)])
    said = [tell(one, letters=row.letters) for one in row.said if one.ranking.annotator_id == found.annotator_id]
    context = {"project": project, "ranking": found, "told": said, **{"task": row.task}}
    return render(request, "annotate/withdraw_ranking.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def withdraw_of_task(request: HttpRequest, slug: str, task: int, response: int) -> HttpResponse:
    """Asks first; then blanks one response of a task, and withdraws the rankings that it stands in."""
    found = get_task_for(visitor(request), slug, task, role=Role.MANAGER)
    shown = found.task_responses.select_related("response__prompt__project").filter(response=response).first()
    if shown is None:
        raise NotFound(_("There is no such response in this task."))
    if request.method == "POST":
        try:
            withdraw_response(response=shown.response, by=visitor(request))
        except Refused as refused:
            messages.error(request, refused.message)
        else:
            messages.success(request, _("The response was withdrawn."))
        return redirect("task", slug, task)
    reach = reach_of_response(shown.response)
    (row,) = task_rows([found])
    context = {"project": found.project, "task": found, "letter": row.letters[response], "reach": reach}
    return render(request, "annotate/withdraw_response.html", context)


def _back(request: HttpRequest, slug: str, task: int) -> HttpResponse:
    """To where the button stood: the list, or the task."""
    return redirect(_address_back(request.POST.get("next", ""), slug, task))


def _address_back(given: str, slug: str, task: int) -> str:
    if url_has_allowed_host_and_scheme(given, allowed_hosts=None):
        return given
    return reverse("task", args=[slug, task])
