"""Telling the project's webhooks that a run ended."""

from annotate.services.events import tell_of_run
from training.models import ModelVersion, Run, Try


def tell_finished(run_id: int) -> None:
    """To be called last in the transaction that ends the run. A try is nobody's business but its author's."""
    if Try.objects.filter(pk=run_id).exists():
        return
    run = Run.objects.select_related("project").get(pk=run_id)
    tell_of_run(
        project=run.project,
        run=run.pk,
        name=run.name,
        kind=run.kind,
        state=run.state,
        reason=run.reason,
        model=ModelVersion.objects.filter(run=run).values_list("pk", flat=True).first(),
    )
