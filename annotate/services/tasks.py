"""Making single tasks: repeats, gold, and whatever is not a bulk import."""

from collections.abc import Sequence

from django.db import transaction
from django.utils.translation import gettext as _

from annotate.assignment import lane_of
from annotate.errors import Invalid
from annotate.models import Counter, Prompt, RankingTask, Response, Slot, TaskResponse, User
from annotate.services.counters import draw


@transaction.atomic
def create_task(
    *,
    prompt: Prompt,
    responses: Sequence[Response],
    overlap: int | None = None,
    priority: int = RankingTask.Priority.NORMAL,
    kind: str = RankingTask.Kind.NORMAL,
    repeat_of: RankingTask | None = None,
    reserved_for: User | None = None,
) -> RankingTask:
    """Writes the task, its responses and its slots, and offers the slots. Locks the project's offer counter.

    Args:
        overlap: how many annotators rank it; the project's default if not given.
        reserved_for: the one person whom a repeat is for.

    Raises:
        Invalid: not 2 to 9 responses.
    """
    if not 2 <= len(responses) <= 9:
        raise Invalid(
            _("A ranking task has 2 to 9 responses, not %(count)d.") % {"count": len(responses)},
            fields={"responses": "2 to 9."},
        )
    project = prompt.project
    places = project.overlap if overlap is None else overlap
    task = RankingTask.objects.create(
        project=project, prompt=prompt, kind=kind, overlap=places, priority=priority, repeat_of=repeat_of
    )
    TaskResponse.objects.bulk_create([TaskResponse(task=task, prompt=prompt, response=item) for item in responses])
    if places:
        offer = draw(project=project, name=Counter.Name.OFFER, count=places)
        lane = lane_of(priority=priority, reoffered=False)
        Slot.objects.bulk_create(
            [
                Slot(
                    task=task,
                    project=project,
                    number=number,
                    lane=lane,
                    offer=offer + number - 1,
                    reserved_for=reserved_for,
                )
                for number in range(1, places + 1)
            ]
        )
    return task


def create_repeat(*, task: RankingTask, annotator: User) -> RankingTask:
    """The same responses once more for one person, to see how steady their judgement is."""
    responses = [row.response for row in task.task_responses.select_related("response").order_by("response_id")]
    return create_task(
        prompt=task.prompt,
        responses=responses,
        overlap=1,
        priority=task.priority,
        kind=RankingTask.Kind.REPEAT,
        repeat_of=task,
        reserved_for=annotator,
    )
