"""The registry of models. Everything needs the engineer right in the project."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from annotate.pages.access import page, visitor
from training.models import ModelVersion
from training.pages.older import newest
from training.pages.report import report_parts
from training.selectors import accuracy_of, get_model_for, lineage_of, models_for, withdrawn_among


@require_safe
@page
def models(request: HttpRequest) -> HttpResponse:
    """The registry: models of the visitor's projects and shared ones, the newest first."""
    found, older = newest(models_for(visitor(request)), request)
    return render(request, "training/models.html", {"rows": _model_rows(found), "older": older})


@require_safe
@page
def model(request: HttpRequest, model_id: int) -> HttpResponse:
    """One model: what it scored on held-out data, and where it came from."""
    found = get_model_for(visitor(request), model_id)
    context = {
        **_model_rows([found])[0],
        "lineage": lineage_of(found),
        "children": found.children.all(),
        "report_parts": report_parts(found.report),
    }
    return render(request, "training/model.html", context)


def _model_rows(models: list[ModelVersion]) -> list[dict[str, Any]]:
    withdrawn = withdrawn_among(models)
    return [
        {
            "model": model,
            "withdrawn": model.pk in withdrawn,
            "accuracy": accuracy_of(model.report),
            "length_baseline": accuracy_of(model.report, what="length_baseline"),
        }
        for model in models
    ]
