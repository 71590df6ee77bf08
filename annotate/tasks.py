"""What workers of the queue `default` do for annotate. Messages are doorbells: what is to be done is in Postgres."""

from celery import shared_task

from annotate.services import feed_blocks, outbox


@shared_task(name=outbox.TASK, ignore_result=True)
def deliver_webhooks() -> int:
    """Tells webhooks what is due; how many attempts there were. Several at once never send one event together."""
    return outbox.deliver_due()


@shared_task(name="annotate.count_feeds_ahead", ignore_result=True)
def count_feeds_ahead() -> int:
    """Counts what exports will be asked for; how many blocks of feeds. Twice at once does no harm."""
    return feed_blocks.count_ahead()
