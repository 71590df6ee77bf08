"""Withdrawing all that a person wrote: how much it is and what it reaches first, then once more to be sure.

A member has a page that leads here; who only came with an import has nothing but this one.
"""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_http_methods

from annotate.errors import Refused
from annotate.models import Membership, Project, Role, User, Withdrawal
from annotate.pages.access import page, visitor
from annotate.pages.overview import rights_of
from annotate.selectors.imported_people import get_imported, name_of
from annotate.selectors.people import get_member
from annotate.selectors.projects import get_project_for, membership_of
from annotate.selectors.withdrawals import reach_of_annotator, withdrawals_of
from annotate.services.withdrawn_people import withdraw_annotator

#: How long the page waits before it leaves the rest to a worker.
SECONDS = 5.0
LOG = 20


class ReasonForm(forms.Form):
    """Why something is withdrawn."""

    # An area, because Enter in a line would press the first button of the form.
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        required=False,
        max_length=Withdrawal._meta.get_field("reason").max_length,
        widget=forms.Textarea(attrs={"rows": 2, "autocomplete": "off"}),
        help_text=gettext_lazy(
            "For the list of what was withdrawn, where it is kept: for example the number of the request. No names."
        ),
    )

    def clean_reason(self) -> str:
        return " ".join(self.cleaned_data["reason"].split())


@require_http_methods(["GET", "HEAD", "POST"])
@page
def withdraw_member(request: HttpRequest, slug: str, member: int) -> HttpResponse:
    """Of a member: asks first, then withdraws."""
    project = get_project_for(visitor(request), slug, role=Role.MANAGER)
    found = get_member(project, member)
    return _of_person(request, project, found.user, back=reverse("member", args=[slug, member]), member=found)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def withdraw_imported(request: HttpRequest, slug: str, annotator: int) -> HttpResponse:
    """Of somebody whose rankings were imported, and who is no member: asks first, then withdraws."""
    project = get_project_for(visitor(request), slug, role=Role.MANAGER)
    return _of_person(request, project, get_imported(project, annotator), back=reverse("people", args=[slug]))


def _of_person(
    request: HttpRequest, project: Project, person: User, *, back: str, member: Membership | None = None
) -> HttpResponse:
    """Counts, snapshots and models; posted, it withdraws as far as the request can wait for it."""
    user = visitor(request)
    form = ReasonForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        reason = form.cleaned_data["reason"]
        try:
            done = withdraw_annotator(project=project, annotator=person, by=user, reason=reason, seconds=SECONDS)
        except Refused as refused:
            messages.error(request, refused.message)
        else:
            messages.success(request, _said(done, name=_name(person, member)))
        return redirect(request.path)
    reach = reach_of_annotator(project, person)
    context = {
        **rights_of(membership_of(user=user, project=project)),
        "project": project,
        "tab": "people",
        "member": member,
        "name": _name(person, member),
        "back": back,
        "form": form,
        "reach": reach,
        "amounts": amounts_of(reach.counts),
        "log": log_of(project),
    }
    return render(request, "annotate/withdraw_person.html", context, status=422 if form.errors else 200)


def _name(person: User, member: Membership | None) -> str:
    return person.username if member else name_of(person)


def _said(done: Withdrawal, *, name: str) -> str:
    if done.finished_at is None:
        return _("What %(name)s wrote is being withdrawn; it goes on by itself.") % {"name": name}
    count = done.counts.get("rankings", 0)
    words = ngettext(
        "What %(name)s wrote is withdrawn: %(count)d ranking, with all that belongs to it.",
        "What %(name)s wrote is withdrawn: %(count)d rankings, with all that belongs to them.",
        count,
    )
    return words % {"name": name, "count": count}


def amounts_of(counts: dict[str, int]) -> list[str]:
    """Counts of the log in words, those above zero: “12 rankings”."""
    words = {
        "prompts": lambda n: ngettext("%(n)d prompt", "%(n)d prompts", n),
        "responses": lambda n: ngettext("%(n)d response", "%(n)d responses", n),
        "tasks": lambda n: ngettext("%(n)d task closed", "%(n)d tasks closed", n),
        "rankings": lambda n: ngettext("%(n)d ranking (revisions counted)", "%(n)d rankings (revisions counted)", n),
        "answers": lambda n: ngettext("%(n)d task answered", "%(n)d tasks answered", n),
        "extras": lambda n: ngettext("%(n)d of them an extra", "%(n)d of them extras", n),
        "rationales": lambda n: ngettext("%(n)d note on a ranking", "%(n)d notes on rankings", n),
        "rewrites": lambda n: ngettext("%(n)d edited version", "%(n)d edited versions", n),
        "drafts": lambda n: ngettext("%(n)d draft", "%(n)d drafts", n),
        "skip_notes": lambda n: ngettext("%(n)d note on a skip", "%(n)d notes on skips", n),
        "flag_notes": lambda n: ngettext("%(n)d note on a flag", "%(n)d notes on flags", n),
        "review_notes": lambda n: ngettext("%(n)d note on a review", "%(n)d notes on reviews", n),
    }
    return [words[name](counts[name]) % {"n": counts[name]} for name in words if counts.get(name)]


def log_of(project: Project) -> list[dict[str, Any]]:
    """The last withdrawals, latest first, with their amounts in words."""
    rows = withdrawals_of(project).order_by("-pk")[:LOG]
    return [
        {
            "row": row,
            "annotator": name_of(row.annotator) if row.annotator else "",
            "amounts": ", ".join(amounts_of(row.counts)),
        }
        for row in rows
    ]
