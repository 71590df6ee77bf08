"""Keeping which responses give away their maker. Imports find them; a rescan finds what the search has learnt since."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.db import transaction
from django.db.models.functions import Now

from annotate.errors import Conflict, NotFound
from annotate.leaks import identity_leak
from annotate.models import IdentityLeak, Project, Response, User

BATCH = 1000


@dataclass(slots=True)
class LeakCounts:
    """Responses read, leaks that are new, leaks known before, and leaks that were found once and are none."""

    read: int = 0
    new: int = 0
    known: int = 0
    gone: int = 0


def find_leaks(
    *, project: Project, dry_run: bool = False, progress: Callable[[int], object] | None = None
) -> LeakCounts:
    """Reads all responses of the project again, and adds and removes leaks accordingly; what was settled stays.

    Writes in transactions of 1,000 responses each, which it locks against withdrawal.

    Args:
        dry_run: count, and write nothing.
        progress: told of each batch's size.
    """
    counts, after = LeakCounts(), 0
    while batch := _scan(project=project, after=after, counts=counts, dry_run=dry_run):
        after = batch[-1].pk
        if progress is not None:
            progress(len(batch))
    return counts


@transaction.atomic
def _scan(*, project: Project, after: int, counts: LeakCounts, dry_run: bool) -> Sequence[Response]:
    rows = Response.objects.filter(prompt__project=project, withdrawn_at=None, pk__gt=after).only("text")
    rows = rows if dry_run else rows.select_for_update(of=("self",), no_key=True)
    batch = list(rows.order_by("pk")[:BATCH])
    known = {leak.response_id: leak for leak in IdentityLeak.objects.filter(response__in=batch)}
    phrases = {response.pk: phrase for response in batch if (phrase := identity_leak(response.text))}
    new = [pk for pk in phrases if pk not in known]
    gone = [leak for pk, leak in known.items() if pk not in phrases and leak.settled_at is None]
    if not dry_run:
        IdentityLeak.objects.filter(pk__in=[leak.pk for leak in gone]).delete()
        IdentityLeak.objects.bulk_create(
            IdentityLeak(project=project, response_id=pk, phrase=phrases[pk]) for pk in new
        )
    counts.read, counts.new = counts.read + len(batch), counts.new + len(new)
    counts.known, counts.gone = counts.known + len(known) - len(gone), counts.gone + len(gone)
    return batch


@transaction.atomic
def settle_leak(*, project: Project, leak_id: int, by: User) -> None:
    """A manager has looked and lets the task be. Locks the leak.

    Raises:
        NotFound: the project has no such leak.
        Conflict: it was settled before (code `settled`).
    """
    leak = IdentityLeak.objects.select_for_update().filter(pk=leak_id, project=project).first()
    if leak is None:
        raise NotFound("There is no such leak.")
    if leak.settled_at is not None:
        raise Conflict("Somebody has settled this already.", code="settled")
    IdentityLeak.objects.filter(pk=leak.pk).update(settled_at=Now(), settled_by=by)
