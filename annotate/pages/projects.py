"""My projects, one project, its guidelines."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from annotate.errors import Refused
from annotate.models import Membership, Project, Role, User
from annotate.pages.access import page, visitor
from annotate.pages.forms import FreezeForm
from annotate.pages.rendering import render_text
from annotate.selectors.progress import imported_rankings, own_progress, project_progress, recent_rankings
from annotate.selectors.projects import RANK, current_version, get_project_for, membership_of, projects_of
from annotate.services.snapshots import freeze_snapshot


@require_safe
@page
def home(request: HttpRequest) -> HttpResponse:
    """The projects the visitor is a member of, each with how far it is and what the visitor can do there."""
    user = visitor(request)
    projects = list(projects_of(user).filter(archived_at=None))
    overall, own = project_progress(projects), own_progress(user=user, projects=projects)
    rows = [
        {"project": project, "progress": overall[project.pk], "own": own[project.pk], **_rights(project, user=user)}
        for project in projects
    ]
    rows.sort(key=lambda row: not (row["may_rank"] and row["progress"].left))  # what can be ranked now comes first
    return render(request, "annotate/home.html", {"rows": rows})


@require_safe
@page
def project(request: HttpRequest, slug: str) -> HttpResponse:
    """Where a project stands, and what the visitor's role can do about it."""
    found = get_project_for(visitor(request), slug)
    return render(request, "annotate/project.html", project_context(found, user=visitor(request)))


def project_context(project: Project, *, user: User, freeze_form: FreezeForm | None = None) -> dict[str, Any]:
    """What the project page shows to this member; snapshots, people and export only to those who may see them."""
    rights = _rights(project, user=user)
    engineer = rights["membership"].engineer
    return {
        **rights,
        "project": project,
        "progress": project_progress([project])[project.pk],
        "own": own_progress(user=user, projects=[project])[project.pk],
        "recent": recent_rankings(project),
        "imported": imported_rankings(project),
        "version": current_version(project),
        "snapshots": project.snapshots.select_related("created_by") if engineer else None,
        "freeze_form": (freeze_form or _new_freeze_form(project)) if engineer else None,
        "members": _members(project) if rights["manages"] else None,
    }


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
            count = snapshot.counts["rankings"]
            messages.success(request, f"Frozen: {snapshot.name}, {count:,} ranking{'' if count == 1 else 's'}.")
            return redirect(f"{found.get_absolute_url()}#snapshots-title")
    return render(request, "annotate/project.html", project_context(found, user=user, freeze_form=form), status=422)


def _rights(project: Project, *, user: User) -> dict[str, Any]:
    membership = membership_of(user=user, project=project)
    rank = RANK[membership.role]
    return {
        "membership": membership,
        "may_rank": rank >= RANK[Role.ANNOTATOR],
        "manages": rank >= RANK[Role.MANAGER],
    }


def _new_freeze_form(project: Project) -> FreezeForm:
    return FreezeForm(initial={"name": f"No. {project.snapshots.count() + 1}"})


def _members(project: Project) -> list[Membership]:
    return list(project.memberships.select_related("user").order_by("user__username"))


@require_safe
@page
def guidelines(request: HttpRequest, slug: str) -> HttpResponse:
    """The guidelines now in force."""
    found = get_project_for(visitor(request), slug)
    version = current_version(found)
    context = {"project": found, "version": version, "html": render_text(version.guidelines)}
    return render(request, "annotate/guidelines.html", context)
