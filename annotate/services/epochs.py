"""The histories of a database."""

from annotate.models import DatabaseEpoch


def start_epoch() -> DatabaseEpoch:
    """Starts a new history: every export cursor given out before is refused from now on.

    To be called after a restore from a backup, when cursors may name changes that this database never had.
    """
    return DatabaseEpoch.objects.create()
