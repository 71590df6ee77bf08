"""Bringing data in from the browser: a file is uploaded, looked at and only then imported; and taking it back."""

import uuid
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

from annotate.errors import NotFound, Refused
from annotate.interchange import FORMATS
from annotate.interchange.records import FileError
from annotate.models import ImportBatch, ImportUpload, Project, Role
from annotate.pages.access import page, visitor
from annotate.pages.format_words import IMPORTS, IMPORTS_EXPLAINED
from annotate.pages.import_forms import LookForm
from annotate.pages.import_previews import shown_preview
from annotate.pages.overview import rights_of
from annotate.selectors.access import get_project_for_data
from annotate.selectors.projects import membership_of
from annotate.services.import_reports import ImportReport
from annotate.services.import_undo import undo_import
from annotate.services.uploads import (
    KEPT_FOR,
    drop_upload,
    get_upload,
    import_upload,
    keep_upload,
    map_columns,
    preview_upload,
)

#: The shortest line that is a task.
EXAMPLE = '{"prompt": "What is tea?", "responses": ["A drink made of leaves.", "A plant."]}'
BATCHES = 20
FAULTS = 20


class UploadForm(forms.Form):
    """A file and what is in it."""

    file = forms.FileField(label=gettext_lazy("File"), help_text=gettext_lazy("JSON and CSV may be gzip."))
    format = forms.ChoiceField(
        label=gettext_lazy("Format"), choices=[(name, IMPORTS[name]) for name in FORMATS], initial="plackett"
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
    """The upload, and earlier imports. What is uploaded is kept and looked at; nothing is imported here."""
    user = visitor(request)
    project = get_project_for_data(user, slug, role=Role.MANAGER)
    posted = request.method == "POST"
    form = UploadForm(request.POST if posted else None, request.FILES if posted else None)
    if posted and form.is_valid():
        given = form.cleaned_data["file"]
        try:
            upload = keep_upload(
                project=project,
                by=user,
                file=given,
                name=given.name or "",
                size=given.size,
                format=form.cleaned_data["format"],
            )
        except FileError as problem:
            form.add_error("file", _("The file cannot be read, and nothing was changed: %(why)s.") % {"why": problem})
        except Refused as refused:
            form.add_error(None, refused.message)
        else:
            return redirect("import_upload", slug, upload.pk)
    context = _context(request, project) | {"form": form}
    return render(request, "annotate/import.html", context, status=422 if form.errors else 200)


def _context(request: HttpRequest, project: Project, report: ImportReport | None = None) -> dict[str, Any]:
    return {
        **rights_of(membership_of(user=visitor(request), project=project)),
        "project": project,
        "tab": "import",
        "form": UploadForm(),
        "native": IMPORTS["plackett"],
        "explained": [(IMPORTS[name], words) for name, words in IMPORTS_EXPLAINED.items()],
        "example": EXAMPLE,
        "batches": project.import_batches.select_related("created_by").order_by("-pk")[:BATCHES],
        **_report_context(report),
    }


def _report_context(report: ImportReport | None) -> dict[str, Any]:
    return {"report": report, "faults": report.faults[:FAULTS] if report else []}


# --- a file that waits ------------------------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@page
def upload_page(request: HttpRequest, slug: str, upload: uuid.UUID) -> HttpResponse:
    """What the file holds, what its columns mean, a try that changes nothing, and the import."""
    user = visitor(request)
    project = get_project_for_data(user, slug, role=Role.MANAGER)
    found = get_upload(project=project, by=user, upload=upload)
    if request.method != "POST":
        return _look(request, project, found, LookForm(found))
    wanted = request.POST.get("do", "")
    if wanted == "drop":
        drop_upload(found)
        messages.success(request, _("The file was removed; nothing of it was imported."))
        return redirect("import_data", slug)
    form = LookForm(found, request.POST)
    if not form.is_valid():
        return _look(request, project, found, form)
    try:
        map_columns(found, form.mapping())
        if wanted not in {"try", "import"}:
            return redirect("import_upload", slug, found.pk)
        report = import_upload(found, dry_run=wanted == "try", **form.options())
    except FileError as problem:
        form.add_error(None, _("The file cannot be read, and nothing was changed: %(why)s.") % {"why": problem})
    except Refused as refused:
        form.add_error(None, refused.message)
    else:
        if wanted == "import":
            return render(request, "annotate/import.html", _context(request, project, report))
        return _look(request, project, found, form, report)
    return _look(request, project, found, form)


def _look(
    request: HttpRequest, project: Project, upload: ImportUpload, form: LookForm, report: ImportReport | None = None
) -> HttpResponse:
    context = {
        **rights_of(membership_of(user=visitor(request), project=project)),
        **_report_context(report),
        "project": project,
        "tab": "import",
        "upload": upload,
        "format": IMPORTS[upload.format],
        "until": upload.created_at + KEPT_FOR,
        "form": form,
    }
    try:
        context |= shown_preview(preview_upload(upload))
    except (FileError, Refused) as problem:
        context["unreadable"] = str(problem)
    return render(request, "annotate/import_upload.html", context, status=422 if form.errors else 200)


# --- taking it back ---------------------------------------------------------------------------------------------------


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
