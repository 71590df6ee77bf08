"""The registry of models. Everything needs the engineer right in the project; what is shared may be read elsewhere."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from annotate.errors import Refused
from annotate.pages.access import page, visitor
from annotate.pages.rendering import render_text
from training.models import ModelVersion, Run
from training.pages.older import newest
from training.pages.report import report_headline, report_parts
from training.selectors import accuracy_of, engineered_projects, get_model_for, models_for, withdrawn_among
from training.selectors_models import (
    card_of,
    doubts_about,
    events_of,
    files_of,
    generations_of,
    get_model_to_change,
    runs_reading,
    runs_using,
    uses_of,
)
from training.services.registry import MAX_REASON_CHARACTERS, delete_model, promote_model

USES_SHOWN = 50
EVENTS_SHOWN = 50

COLOUR_OF_STAGE = {ModelVersion.Stage.PRODUCTION: "good", ModelVersion.Stage.CANDIDATE: "now"}


@require_safe
@page
def models(request: HttpRequest) -> HttpResponse:
    """The registry: models of the visitor's projects and shared ones, the newest first."""
    found, older = newest(models_for(visitor(request)), request)
    withdrawn = withdrawn_among(found)
    rows = [
        {
            "model": one,
            "withdrawn": one.pk in withdrawn,
            "colour": COLOUR_OF_STAGE.get(ModelVersion.Stage(one.stage), ""),
            "headline": report_headline(one.report),
            "length_baseline": accuracy_of(one.report, what="length_baseline"),
        }
        for one in found
    ]
    return render(request, "training/models.html", {"rows": rows, "older": older})


@require_safe
@page
def model(request: HttpRequest, model_id: int) -> HttpResponse:
    """One model: what it scored on held-out data, where it came from, what came of it, and what can be done with it."""
    return _model_page(request, get_model_for(visitor(request), model_id))


@require_POST
@page
def promote(request: HttpRequest, model_id: int) -> HttpResponse:
    """Gives the model another stage; what is refused is said beside the form, with what was written still in it."""
    found = get_model_to_change(visitor(request), model_id)
    given = {name: request.POST.get(name, "").replace("\0", "") for name in ("stage", "reason", "confirm")}
    try:
        moved = promote_model(
            found,
            stage=given["stage"],
            actor=visitor(request),
            confirmed=given["confirm"] == "on",
            reason=given["reason"],
        )
    except Refused as refused:
        return _model_page(request, found, status=refused.status, refusal=refused.message, given=given)
    messages.success(request, _("The model's stage is now: %(stage)s.") % {"stage": moved.get_stage_display()})
    return redirect(found)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def delete(request: HttpRequest, model_id: int) -> HttpResponse:
    """Asks whether to delete the model's files; deletes on POST, and tries again where some are left."""
    found = get_model_to_change(visitor(request), model_id)
    if request.method != "POST":
        reading = runs_reading(found).exclude(state__in=Run.FINISHED)
        mine = runs_using(visitor(request), found).exclude(state__in=Run.FINISHED)
        context = {
            "model": found,
            "reading": mine,
            "reading_elsewhere": reading.count() - mine.count(),
            "in_production": found.stage == ModelVersion.Stage.PRODUCTION,
        }
        return render(request, "training/delete_model.html", context)
    try:
        deleted = delete_model(found, actor=visitor(request))
    except Refused as refused:
        messages.error(request, refused.message)
    else:
        _tell_deleted(request, deleted)
    return redirect(found)


def _tell_deleted(request: HttpRequest, model: ModelVersion) -> None:
    if model.files_removed_at is not None:
        messages.success(request, _("The model's files were removed; its lineage stays."))
    else:
        messages.warning(request, _("The model is deleted, but its files could not be removed yet."))


def _model_page(
    request: HttpRequest,
    model: ModelVersion,
    *,
    status: int = 200,
    refusal: str = "",
    given: dict[str, str] | None = None,
) -> HttpResponse:
    user = visitor(request)
    uses, others = uses_of(user, model, limit=USES_SHOWN)
    files = files_of(model)
    may_change = engineered_projects(user).filter(pk=model.project_id).exists()
    context: dict[str, Any] = {
        "model": model,
        "colour": COLOUR_OF_STAGE.get(ModelVersion.Stage(model.stage), ""),
        "may_change": may_change,
        # A shared model is tried in a project of the reader's own.
        "try_in": model.project if may_change else engineered_projects(user).first(),
        "doubts": doubts_about(model),
        "generations": generations_of(user, model),
        "uses": uses,
        "other_uses": others,
        # Who did what is the business of the model's own project.
        "events": list(events_of(model)[:EVENTS_SHOWN]) if may_change else [],
        "report_parts": report_parts(model.report),
        "card": render_text(card) if (card := card_of(model)) else "",
        "files": files,
        "files_bytes": sum(one.size_bytes for one in files),
        "stages": ModelVersion.Stage.choices,
        "max_reason": MAX_REASON_CHARACTERS,
        "refusal": refusal,
        "given": given or {"stage": model.stage, "reason": "", "confirm": ""},
    }
    return render(request, "training/model.html", context, status=status)
