"""Runs that build on others: queued when the one they wait for succeeds, ended with one that never will."""

from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from annotate.models import Snapshot
from training.models import Run, RunInput
from training.services.doorbell import ring_on_commit
from training.services.run_inputs import settle_inputs


def queue_waiting_children(parent: Run) -> None:
    """Queues the runs that waited for this one; to be called in the transaction in which it succeeds.

    A child that awaits another run besides stays until that one succeeds, too. Wakes workers on commit.
    """
    for child in _waiting(parent):
        if _is_withdrawn(child):
            _end(child, Run.State.FAILED, _("The snapshot was withdrawn while this run waited."))
            fail_hopeless_children(child)
        elif settle_inputs(child):
            child.state, child.queued_at = Run.State.QUEUED, Now()
            child.save(update_fields=["state", "queued_at"])
            ring_on_commit(child.queue)


def cancel_waiting_children(parent: Run) -> None:
    """Cancels all that would only have begun behind a run that was cancelled."""
    if parent.state != Run.State.CANCELLED:
        return
    for child in _waiting(parent):
        child.cancel_requested_at = Now()
        _end(child, Run.State.CANCELLED, _("The run that it waited for, %(run)s, was cancelled.") % {"run": parent.pk})
        cancel_waiting_children(child)


def fail_hopeless_children(parent: Run) -> None:
    """Fails all that wait for a run which failed and cannot be resumed, because its snapshot was withdrawn.

    Behind any other run that failed they wait on: somebody may resume it.
    """
    if parent.state != Run.State.FAILED or not _is_withdrawn(parent):
        return
    words = _("The run that it waited for, %(run)s, cannot go on: its snapshot was withdrawn.") % {"run": parent.pk}
    hopeless = [parent]
    while hopeless:
        for child in _waiting(hopeless.pop()):
            _end(child, Run.State.FAILED, words)
            hopeless.append(child)


def _is_withdrawn(run: Run) -> bool:
    return run.snapshot is not None and run.snapshot.state != Snapshot.State.FROZEN


def _waiting(parent: Run) -> list[Run]:
    """The waiting runs that build on this one, locked in one order."""
    name = f"run:{parent.pk}"
    reads_it = RunInput.objects.filter(name=name).values("run")
    children = Run.objects.select_for_update(of=("self",)).select_related("snapshot").filter(state=Run.State.WAITING)
    return list(children.filter(Q(parent=parent) | Q(base_model=name) | Q(pk__in=reads_it)).order_by("pk"))


def _end(run: Run, state: Run.State, reason: str) -> None:
    run.state, run.finished_at, run.reason = state, Now(), reason
    run.save(update_fields=["state", "finished_at", "reason", "cancel_requested_at"])
