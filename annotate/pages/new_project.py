"""Making a project in the browser."""

from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from annotate.errors import Forbidden, Invalid
from annotate.models import Project, User
from annotate.pages.access import page, visitor
from annotate.pages.presets import PRESETS, preset_named
from annotate.pages.setup_forms import NewProjectForm
from annotate.selectors.access import may_create_projects
from annotate.services.projects import create_project


@require_http_methods(["GET", "HEAD", "POST"])
@page
def new_project(request: HttpRequest) -> HttpResponse:
    """Asks for a name and a set of rules to start from; then on to the set-up."""
    user = visitor(request)
    if not may_create_projects(user):
        raise Forbidden(_("Making projects needs an administrator, or the permission to add projects."))
    form = NewProjectForm(request.POST if request.method == "POST" else None)
    if form.is_valid() and (project := _make(form, user)):
        return redirect(f"{reverse('setup', args=[project.slug])}?new")
    status = 422 if form.is_bound else 200
    return render(request, "annotate/project_new.html", {"form": form, "presets": PRESETS}, status=status)


def _make(form: NewProjectForm, user: User) -> Project | None:
    given = dict(form.cleaned_data)
    preset = preset_named(given.pop("preset"))
    try:
        return create_project(created_by=user, rules=preset.filled() if preset else {}, **given)
    except Invalid as refused:
        for name, message in refused.fields.items():
            form.add_error(name if name in form.fields else None, message)
    except (IntegrityError, ValidationError):
        form.add_error("slug", _("Another project has this address."))
    return None
