"""Reviewing: from one ranking that nobody has looked at to the next, and a verdict on each."""

from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from annotate.errors import NotFound, Refused
from annotate.models import Project, Ranking, Role
from annotate.pages.access import page, visitor
from annotate.pages.overview import rights_of
from annotate.selectors.projects import get_project_for, membership_of
from annotate.selectors.reviews import next_to_review
from annotate.services.reviews import review_ranking


@require_safe
@page
def review_next(request: HttpRequest, slug: str) -> HttpResponse:
    """To the next ranking that waits for a review, on the page of its task; or word that nothing waits."""
    user = visitor(request)
    project = get_project_for(user, slug, role=Role.REVIEWER)
    found = next_to_review(project, user, after=_number(request.GET.get("after", "")))
    if found is not None:
        return redirect(_address_of(found))
    context = {**rights_of(membership_of(user=user, project=project)), "project": project, "tab": "tasks"}
    return render(request, "annotate/review_done.html", context)


@require_POST
@page
def review(request: HttpRequest, slug: str, ranking: int) -> HttpResponse:
    """Keeps the verdict; then the next ranking for whoever goes through them one by one, else the same page again."""
    user = visitor(request)
    project = get_project_for(user, slug, role=Role.REVIEWER)
    found = _own(project, ranking)
    walking = request.POST.get("walking") == "1"
    try:
        review_ranking(
            ranking=found, reviewer=user, verdict=request.POST.get("verdict", ""), note=request.POST.get("note", "")
        )
    except Refused as refused:
        messages.error(request, refused.message)
        return redirect(_address_of(found) if walking else reverse("task", args=[slug, found.task_id]))
    if walking:
        return redirect(f"{reverse('review', args=[slug])}?{urlencode({'after': found.pk})}")
    messages.success(request, _("Your review is kept."))
    return redirect("task", slug, found.task_id)


def reviewing(request: HttpRequest) -> int:
    """The ranking that whoever goes through them one by one is asked about on a task's page; 0 for none."""
    return _number(request.GET.get("review", ""))


def _own(project: Project, ranking: int) -> Ranking:
    found = Ranking.objects.select_related("project", "annotator").filter(pk=ranking, project=project).first()
    if found is None:
        raise NotFound(_("There is no such ranking."))
    return found


def _address_of(ranking: Ranking) -> str:
    address = reverse("task", args=[ranking.project.slug, ranking.task_id])
    return f"{address}?{urlencode({'review': ranking.pk})}"


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0
