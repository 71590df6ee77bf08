"""The versions of a project's rules: what each one says, who made it and when, how many rankings stand under it."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from annotate.models import Role
from annotate.pages.access import page, visitor
from annotate.pages.rendering import render_text
from annotate.pages.rule_words import changes_between, guidelines_difference, names, rules_in_words
from annotate.pages.setup import tab_of
from annotate.selectors.projects import current_version, get_project_for
from annotate.selectors.setup import rankings_by_version, readers, version_of, versions_of
from annotate.services.project_rules import rules_of


@require_safe
@page
def versions(request: HttpRequest, slug: str) -> HttpResponse:
    """Every version with what it changed, and who has read the guidelines in force."""
    user = visitor(request)
    project = get_project_for(user, slug, role=Role.MANAGER)
    found, called, counts = versions_of(project), names(), rankings_by_version(project)
    rows = []
    for version, before in zip(found, [*found[1:], None], strict=True):
        fields = {one.field for one in changes_between(rules_of(before), rules_of(version))} if before else set()
        changed = [name for field, name in called.items() if field in fields]
        rows.append({"version": version, "changed": changed, "rankings": counts.get(version.pk, 0)})
    people = readers(project, found[0])
    context = {
        **tab_of(project, user),
        "project": project,
        "version": found[0],
        "rows": rows,
        "readers": people,
        "read": sum(one.read_at is not None for one in people),
    }
    return render(request, "annotate/versions.html", context)


@require_safe
@page
def version(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """One version's content, and what it changed."""
    user = visitor(request)
    project = get_project_for(user, slug, role=Role.MANAGER)
    found = version_of(project, number)
    before = project.versions.filter(number=number - 1).first()
    rules = rules_of(found)
    context = {
        **tab_of(project, user),
        "project": project,
        "version": found,
        "last": current_version(project).number,
        "rankings": rankings_by_version(project).get(found.pk, 0),
        "changes": changes_between(rules_of(before), rules) if before else [],
        "difference": guidelines_difference(rules_of(before), rules) if before else None,
        "words": rules_in_words(rules),
        "html": render_text(found.guidelines),
    }
    return render(request, "annotate/version.html", context)
