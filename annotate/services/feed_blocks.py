"""Counts stretches of feeds ahead, so that an export knows at once how many lines it will have.

A block is counted once all its numbers are drawn, and deleted by whatever supersedes or withdraws a ranking of it, in
that transaction, after its change has its number (services.counters). The number and the counting exclude each other
by the counter's row, so no block outlives what it says. Without blocks everything is counted when it is asked for.
"""

from django.db import transaction

from annotate.models import Change, Counter, FeedBlock, Project
from annotate.selectors.cursors import last_change
from annotate.selectors.line_counts import shapes_of


def count_ahead() -> int:
    """Counts the blocks of all projects that are complete and not counted; how many."""
    full = Counter.objects.filter(name=Counter.Name.CHANGE, value__gte=FeedBlock.CHANGES).select_related("project")
    return sum(_count_project(counter.project, blocks=counter.value // FeedBlock.CHANGES) for counter in full)


def _count_project(project: Project, *, blocks: int) -> int:
    known = set(FeedBlock.objects.filter(project=project).values_list("number", flat=True))
    return sum(_count_block(project, number) for number in range(blocks) if number not in known)


@transaction.atomic
def _count_block(project: Project, number: int) -> bool:
    """Whether it was counted; not if something was superseded or withdrawn meanwhile: the next time, then."""
    as_of = last_change(project)
    size = FeedBlock.CHANGES
    shapes = shapes_of(project, after=number * size, last=(number + 1) * size, up_to=as_of)
    Counter.objects.select_for_update().get(project=project, name=Counter.Name.CHANGE)
    taken_back = (Change.Kind.REVISION, Change.Kind.WITHDRAWAL)
    if Change.objects.filter(project=project, number__gt=as_of, kind__in=taken_back).exists():
        return False
    FeedBlock.objects.get_or_create(project=project, number=number, defaults={"as_of": as_of, "shapes": shapes})
    return True
