"""Bringing prompts in from the browser, and taking an import back."""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST

from annotate import interchange
from annotate.errors import NotFound, Refused
from annotate.interchange.records import FileError
from annotate.models import ImportBatch, Project, Role, User
from annotate.pages.access import page, visitor
from annotate.pages.overview import rights_of
from annotate.selectors.access import get_project_for_data
from annotate.selectors.projects import membership_of
from annotate.services.import_reports import ImportReport
from annotate.services.import_undo import undo_import
from annotate.services.imports import import_stream

FORMAT_NAMES = {
    "plackett": gettext_lazy("Plackett: one JSON object a line"),
    "oasst": gettext_lazy("Open-Assistant trees"),
    "hh": gettext_lazy("HH-RLHF pairs"),
}
#: The shortest line that is a task.
EXAMPLE = '{"prompt": "What is tea?", "responses": ["A drink made of leaves.", "A plant."]}'
BATCHES = 20
FAULTS = 20


class ImportForm(forms.Form):
    """A file of records, and how often its tasks shall be ranked."""

    file = forms.FileField(label=gettext_lazy("File"), help_text=gettext_lazy("Plain or gzip."))
    format = forms.ChoiceField(
        label=gettext_lazy("Format"),
        choices=[(key, FORMAT_NAMES.get(key, key)) for key in sorted(interchange.FORMATS, key="plackett".__ne__)],
        initial="plackett",
    )
    overlap = forms.IntegerField(
        label=gettext_lazy("Annotators for each task"),
        required=False,
        min_value=0,
        max_value=50,
        help_text=gettext_lazy(
            "Empty: what the project says for tasks that come without a ranking, none for those that bring one."
        ),
    )

    def clean_file(self) -> Any:
        """Refuses what is too large for one request."""
        file = self.cleaned_data["file"]
        if file.size > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            limit = filesizeformat(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
            raise forms.ValidationError(
                _("Larger than %(limit)s; manage.py import_data takes files of any size.") % {"limit": limit}
            )
        return file


@require_http_methods(["GET", "HEAD", "POST"])
@page
def import_page(request: HttpRequest, slug: str) -> HttpResponse:
    """The form, the report of what was just imported, and earlier imports. The same file again changes nothing."""
    user = visitor(request)
    project = get_project_for_data(user, slug, role=Role.MANAGER)
    posted = request.method == "POST"
    form = ImportForm(request.POST if posted else None, request.FILES if posted else None)
    report: ImportReport | None = None
    if posted and form.is_valid():
        try:
            report = _import(project, form.cleaned_data, by=user)
        except FileError as problem:
            form.add_error("file", _("The file cannot be read, and nothing was changed: %(why)s.") % {"why": problem})
        except Refused as refused:
            form.add_error(None, refused.message)
    context = {
        **rights_of(membership_of(user=user, project=project)),
        "project": project,
        "tab": "import",
        "form": form,
        "names": FORMAT_NAMES,
        "example": EXAMPLE,
        "report": report,
        "faults": report.faults[:FAULTS] if report else [],
        "batches": project.import_batches.select_related("created_by").order_by("-pk")[:BATCHES],
    }
    return render(request, "annotate/import.html", context, status=422 if form.errors else 200)


def _import(project: Project, given: dict[str, Any], *, by: User) -> ImportReport:
    return import_stream(
        project=project,
        stream=given["file"],
        format=given["format"],
        source=given["file"].name or "",
        created_by=by,
        overlap=given["overlap"],
    )


@require_POST
@page
def undo(request: HttpRequest, slug: str, batch: int) -> HttpResponse:
    """Takes an import back, or says what of it is in use."""
    user = visitor(request)
    project = get_project_for_data(user, slug, role=Role.MANAGER)
    found = ImportBatch.objects.select_related("project").filter(project=project, pk=batch).first()
    if found is None:
        raise NotFound(_("There is no such import."))
    try:
        undo_import(batch=found, by=user)
    except Refused as refused:
        messages.error(request, _("Nothing was undone. %(why)s") % {"why": refused.message})
    else:
        messages.success(request, _("The import was undone."))
    return redirect("import_data", slug)
