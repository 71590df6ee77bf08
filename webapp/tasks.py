"""What has to be done from time to time; `beat` rings by CELERY_BEAT_SCHEDULE in webapp.settings.

Each may run twice, late or not at all for a while, and does no harm by it.
"""

from celery import shared_task
from django.core.management import call_command

from annotate.services import idempotency, outbox, snapshots, uploads
from training.services import registry, retention, tries


@shared_task(name="webapp.forget_sessions", ignore_result=True)
def forget_sessions() -> None:
    """Deletes the log-ins that have expired; their rows are of no use and grow for ever."""
    call_command("clearsessions")


@shared_task(name="webapp.forget_keys", ignore_result=True)
def forget_keys() -> int:
    """Deletes the idempotency keys that nobody repeats a request with any more; how many."""
    return idempotency.forget_keys()


@shared_task(name="webapp.forget_tries", ignore_result=True)
def forget_tries() -> int:
    """Removes the tries of models that ended a week ago, with their files; how many."""
    return tries.forget_tries()


@shared_task(name="webapp.forget_deliveries", ignore_result=True)
def forget_deliveries() -> int:
    """Deletes the log of webhook deliveries that ended a month ago; how many."""
    return outbox.forget_deliveries()


@shared_task(name="webapp.prune_checkpoints", ignore_result=True)
def prune_checkpoints() -> int:
    """Removes the checkpoints that the rules of retention keep no longer; of how many runs."""
    return len(retention.prune_checkpoints())


@shared_task(name="webapp.remove_left_files", ignore_result=True)
def remove_left_files() -> int:
    """Tries again to remove the files of deleted models and of withdrawn snapshots that are still there; how many."""
    return snapshots.delete_left_files() + registry.remove_left_files()


@shared_task(name="webapp.forget_uploads", ignore_result=True)
def forget_uploads() -> int:
    """Removes the files that were uploaded hours ago and neither taken in nor given up; how many."""
    return uploads.forget_uploads()
