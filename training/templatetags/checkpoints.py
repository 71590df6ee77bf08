"""What a run's page says of its checkpoints."""

from typing import Any

from django import template

from training.models import Run, Try
from training.services.retention import kept_of

register = template.Library()


@register.inclusion_tag("training/_checkpoints.html", takes_context=True)
def checkpoints_of(context: Any, run: Run) -> dict[str, Any]:
    """The part of the page; empty for a try, and while there is nothing to say."""
    if Try.objects.filter(pk=run.pk).exists():
        return {"kept": None}
    return {"run": run, "kept": kept_of(run), "csrf_token": context.get("csrf_token")}
