"""My projects, one project, its guidelines."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST, require_safe

from annotate.errors import Refused
from annotate.models import Project, Snapshot, User
from annotate.pages.access import page, visitor
from annotate.pages.forms import FreezeForm
from annotate.pages.overview import manager_context, overview_context, rights_of
from annotate.pages.rendering import render_text
from annotate.selectors.progress import own_progress, project_progress
from annotate.selectors.projects import current_version, get_project_for, membership_of, memberships_of, projects_of
from annotate.selectors.reviews import returned_to
from annotate.selectors.task_lists import beginning_of
from annotate.services.snapshots import freeze_snapshot


@require_safe
@page
def home(request: HttpRequest) -> HttpResponse:
    """The projects the visitor is a member of, each with how far it is and what the visitor can do there."""
    user = visitor(request)
    projects = list(projects_of(user).filter(archived_at=None))
    overall, own = project_progress(projects), own_progress(user=user, projects=projects)
    memberships = memberships_of(user=user, projects=projects)
    rows = [
        {
            "project": project,
            "progress": overall[project.pk],
            "own": own[project.pk],
            **rights_of(memberships[project.pk]),
        }
        for project in projects
    ]
    rows.sort(key=lambda row: not (row["may_rank"] and row["progress"].left))  # what can be ranked now comes first
    archived = projects_of(user).exclude(archived_at=None)
    return render(request, "annotate/home.html", {"rows": rows, "archived": archived})


@require_safe
@page
def project(request: HttpRequest, slug: str) -> HttpResponse:
    """Where a project stands, and what the visitor's role can do about it."""
    found = get_project_for(visitor(request), slug)
    return render(request, "annotate/project.html", project_context(found, user=visitor(request)))


def project_context(project: Project, *, user: User, freeze_form: FreezeForm | None = None) -> dict[str, Any]:
    """What the project page shows to this member; people, lists and export only to those who may see them."""
    rights = rights_of(membership_of(user=user, project=project))
    engineer = rights["membership"].engineer
    everybody = overview_context(project)
    return {
        **rights,
        **everybody,
        **(manager_context(project, everybody["overview"]) if rights["manages"] else {}),
        "project": project,
        "tab": "overview",
        "own": own_progress(user=user, projects=[project])[project.pk],
        "returned": _returned(user, project) if rights["may_rank"] else [],
        "snapshots": project.snapshots.select_related("created_by") if engineer else None,
        "has_data": engineer and project.prompts.exists(),
        "has_rankings": bool(everybody["overview"].done or everybody["overview"].imported),
        "freeze_form": (freeze_form or _new_freeze_form(project)) if engineer else None,
    }


def _returned(user: User, project: Project) -> list[dict[str, Any]]:
    """What reviewers gave back to the visitor."""
    return [
        {"ranking": one.ranking, "review": one.review, "beginning": beginning_of(one.prompt)}
        for one in returned_to(user, project)
    ]


@require_POST
@page
def freeze(request: HttpRequest, slug: str) -> HttpResponse:
    """Freezes a snapshot, or shows the project page again with what was wrong."""
    user = visitor(request)
    found = get_project_for(user, slug, engineer=True)
    form = FreezeForm(request.POST)
    if form.is_valid():
        try:
            snapshot = freeze_snapshot(
                project=found, name=form.cleaned_data["name"], filters=form.filters(), created_by=user
            )
        except Refused as refused:
            form.add_error(None, refused.message)
        else:
            messages.success(request, _frozen(snapshot))
            return redirect(f"{found.get_absolute_url()}#snapshots-title")
    return render(request, "annotate/project.html", project_context(found, user=user, freeze_form=form), status=422)


def _frozen(snapshot: Snapshot) -> str:
    count = snapshot.counts["rankings"]
    said = ngettext("Frozen: %(name)s, %(count)s ranking.", "Frozen: %(name)s, %(count)s rankings.", count)
    return said % {"name": snapshot.name, "count": f"{count:,}"}


def _new_freeze_form(project: Project) -> FreezeForm:
    return FreezeForm(initial={"name": _("No. %(number)d") % {"number": project.snapshots.count() + 1}})


@require_safe
@page
def guidelines(request: HttpRequest, slug: str) -> HttpResponse:
    """The guidelines now in force."""
    user = visitor(request)
    found = get_project_for(user, slug)
    version = current_version(found)
    context = {
        **rights_of(membership_of(user=user, project=found)),
        "project": found,
        "tab": "guidelines",
        "version": version,
        "html": render_text(version.guidelines),
    }
    return render(request, "annotate/guidelines.html", context)
