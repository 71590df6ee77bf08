"""Waking a worker. The message carries nothing: whatever is to be done stands in Postgres."""

import logging

from celery import current_app
from django.db import transaction
from kombu.exceptions import OperationalError

logger = logging.getLogger(__name__)

RING = "training.ring"
SECONDS_TO_LIVE = 60


def ring_on_commit(queue: str) -> None:
    """Wakes a worker of the queue once the transaction has committed."""
    transaction.on_commit(lambda: ring(queue))


def ring(queue: str) -> None:
    """Wakes a worker of the queue. Without a broker nothing is lost but seconds: workers look for themselves too."""
    try:
        current_app.send_task(RING, queue=queue, expires=SECONDS_TO_LIVE, retry=False, ignore_result=True)
    except OperationalError as error:
        logger.warning("the broker did not take the doorbell for %s: %s", queue, error)
