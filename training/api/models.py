"""Models over REST. Everything here needs the engineer right in the project, or in any for what is shared."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.base import Endpoint, asking
from annotate.api.pagination import PAGE_PARAMETERS, page_of
from training.api.asked import OF_PROJECT, project_asked
from training.api.serializers import ModelAnswer, ModelDetails, ModelPage
from training.models import ModelVersion
from training.selectors import accuracy_of, get_model_for, lineage_of, models_for, withdrawn_among


class Models(Endpoint):
    @extend_schema(operation_id="list_models", parameters=[*PAGE_PARAMETERS, OF_PROJECT], responses=ModelPage)
    def get(self, request: Request) -> Response:
        """The registry: models of the projects whose engineer the caller is, and shared ones, oldest first."""
        user = asking(request)
        models = models_for(user, project=project_asked(request, user))
        return Response(page_of(models, request, model_rows))


class OneModel(Endpoint):
    @extend_schema(operation_id="read_model", responses=ModelAnswer)
    def get(self, request: Request, model: int) -> Response:
        """The model, what it scored on held-out data, and where it came from."""
        found = get_model_for(asking(request), model)
        lineage = [one.pk for one in lineage_of(found)]
        return Response({**model_rows([found])[0], "lineage": lineage, "report": found.report})


def model_rows(models: list[ModelVersion]) -> list[dict[str, Any]]:
    """What ModelRow describes, for each."""
    withdrawn = withdrawn_among(models)
    return [
        {
            **ModelDetails(model).data,
            "withdrawn": model.pk in withdrawn,
            "accuracy": accuracy_of(model.report),
            "length_baseline": accuracy_of(model.report, what="length_baseline"),
        }
        for model in models
    ]
