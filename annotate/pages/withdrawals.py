"""Withdrawing all that a member wrote: how much it is and what it reaches first, then once more to be sure."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods

from annotate.errors import Refused
from annotate.models import Project, Role, Withdrawal
from annotate.pages.access import page, visitor
from annotate.pages.overview import rights_of
from annotate.selectors.people import get_member
from annotate.selectors.projects import get_project_for, membership_of
from annotate.selectors.withdrawals import reach_of_annotator, withdrawals_of
from annotate.services.withdrawn_people import withdraw_annotator

#: How long the page waits before it leaves the rest to a worker.
SECONDS = 5.0
LOG = 20


@require_http_methods(["GET", "HEAD", "POST"])
@page
def withdraw_member(request: HttpRequest, slug: str, member: int) -> HttpResponse:
    """Asks first: counts, snapshots and models; then withdraws, as far as the request can wait for it."""
    user = visitor(request)
    project = get_project_for(user, slug, role=Role.MANAGER)
    found = get_member(project, member)
    if request.method == "POST":
        try:
            done = withdraw_annotator(project=project, annotator=found.user, by=user, seconds=SECONDS)
        except Refused as refused:
            messages.error(request, refused.message)
        else:
            messages.success(request, _said(done))
        return redirect("member_withdraw", slug, member)
    reach = reach_of_annotator(project, found.user)
    context = {
        **rights_of(membership_of(user=user, project=project)),
        "project": project,
        "tab": "people",
        "member": found,
        "reach": reach,
        "amounts": amounts_of(reach.counts),
        "log": _log(project),
    }
    return render(request, "annotate/withdraw_member.html", context)


def _said(done: Withdrawal) -> str:
    name = done.annotator.username if done.annotator else ""
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


def _log(project: Project) -> list[dict[str, Any]]:
    rows = withdrawals_of(project).order_by("-pk")[:LOG]
    return [{"row": row, "amounts": ", ".join(amounts_of(row.counts))} for row in rows]
