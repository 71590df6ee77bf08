"""Native records out of the database: the one form in which rankings leave annotate.

Reading is by keyset over the feed, a page at a time, each page a few queries in autocommit: whatever the size of the
project, memory stays level and no transaction stays open.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, TypeVar

from django.db.models import Model, Q, QuerySet

from annotate.interchange.native import canonical
from annotate.models import Demonstration, Project, Prompt, RankingTask
from annotate.selectors.record_builder import (
    ALL_RANKINGS,
    RankingFilter,
    RecordBuilder,
    head_of,
    pseudonym_of,
)
from annotate.selectors.record_rows import RANKED

__all__ = [
    "ALL_RANKINGS",
    "RANKED",
    "RankingFilter",
    "demonstration_records",
    "prompt_records",
    "pseudonym_of",
    "rankings_by_task",
    "records_since",
]

PAGE = 500
#: A short one, so that the first line does not wait for hundreds.
FIRST_PAGE = 50


# --- the feed ---------------------------------------------------------------------------------------------------------


def records_since(
    project: Project,
    *,
    after_change: int = 0,
    up_to_change: int,
    wanted: RankingFilter = ALL_RANKINGS,
    markers: bool = False,
    key: str = "",
) -> Iterator[dict[str, Any]]:
    """Yields the rankings that were written after one change and are current at another, in the order of the feed.

    A ranking that was superseded at or before `up_to_change`, or is withdrawn, is not yielded. With `markers`, a line
    of type `superseded` or `withdrawn` says which earlier line is taken back; a reader that starts at 0 needs none.
    `key` is that of the annotators' pseudonyms. Equal questions give equal records, unless something was withdrawn in
    between.
    """
    builder = RecordBuilder(project, up_to_change=up_to_change, wanted=wanted, key=key)
    last, limit = after_change, FIRST_PAGE
    while page := builder.page_of_feed(after=last, markers=markers, limit=limit):
        yield from builder.build(page, markers=markers)
        if len(page) < limit:
            return
        last, limit = page[-1].number, PAGE


def rankings_by_task(
    project: Project, *, up_to_change: int, wanted: RankingFilter = ALL_RANKINGS, key: str = ""
) -> Iterator[list[dict[str, Any]]]:
    """Yields the rankings of each task that are current at a change, as records_since has them; tasks in their order.

    Read by keyset, `PAGE` tasks at a time; tasks without a wanted ranking are passed over.
    """
    builder = RecordBuilder(project, up_to_change=up_to_change, wanted=wanted, key=key)
    tasks = RankingTask.objects.filter(project=project).order_by("pk")
    if wanted.kinds is not None:
        tasks = tasks.filter(kind__in=wanted.kinds)
    last = 0
    while page := list(tasks.filter(pk__gt=last).values_list("pk", flat=True)[:PAGE]):
        last = page[-1]
        by_task: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for record in builder.build(builder.page_of_tasks(page)):
            by_task[record["task"]].append(record)
        yield from (by_task[str(task)] for task in page if str(task) in by_task)


# --- lines that are no rankings ---------------------------------------------------------------------------------------


def demonstration_records(project: Project, *, splits: tuple[str, ...] | None = None) -> Iterator[dict[str, Any]]:
    """Yields the demonstrations that are not withdrawn, in the order in which they came."""
    found = Demonstration.objects.filter(project=project, withdrawn_at=None, prompt__withdrawn_at=None)
    found = found.filter(prompt__split_group__split__in=splits) if splits is not None else found
    for demonstration in _by_id(found.select_related("prompt__split_group")):
        head = dict(demonstration.prompt.extra) | head_of(
            project, demonstration.prompt, demonstration.prompt.split_group
        )
        own = {"type": "demonstration", "id": f"d{demonstration.pk}", "response": demonstration.text}
        yield canonical(head | own)


def prompt_records(project: Project, *, splits: tuple[str, ...] | None = None) -> Iterator[dict[str, Any]]:
    """Yields the prompts that came without responses, unless only as a demonstration's, in the order of coming."""
    bare = Q(demonstrations=None) | Q(answer__isnull=False) | Q(tests__isnull=False)
    found = Prompt.objects.filter(bare, project=project, withdrawn_at=None, responses=None)
    found = found.filter(split_group__split__in=splits) if splits is not None else found
    for prompt in _by_id(found.select_related("split_group")):
        head = (
            dict(prompt.extra)
            | head_of(project, prompt, prompt.split_group)
            | {"type": "prompt", "id": f"p{prompt.pk}"}
        )
        checked = {"answer": prompt.answer, "tests": prompt.tests}
        yield canonical(head | {key: value for key, value in checked.items() if value is not None})


M = TypeVar("M", bound=Model)


def _by_id(found: QuerySet[M]) -> Iterator[M]:
    last = 0
    while page := list(found.filter(pk__gt=last).order_by("pk").distinct()[:PAGE]):
        last = page[-1].pk
        yield from page
