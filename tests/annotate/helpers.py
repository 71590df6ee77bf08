"""Small steps that the tests of the record share."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import connection

from annotate.models import Ranking, Slot, User
from annotate.preferences import Answer
from annotate.services.rankings import submit_ranking


def answer_of(slot: Slot, *, tiers: list[list[int]] | None = None, **fields: Any) -> Answer:
    """An answer to a leased slot: tiers of positions in the presented order, all in that order if not given."""
    assert slot.presented_order is not None
    ids = [str(pk) for pk in slot.presented_order]
    wanted = tiers if tiers is not None else [[position] for position in range(len(ids))]
    placed = {position for tier in wanted for position in tier}
    return Answer(
        ranking=[[ids[position] for position in tier] for tier in wanted],
        unranked=[name for position, name in enumerate(ids) if position not in placed],
        **fields,
    )


def submit(slot: Slot, annotator: User, **fields: Any) -> Ranking:
    assert slot.lease_id is not None
    return submit_ranking(annotator=annotator, lease_id=slot.lease_id, answer=answer_of(slot, **fields))


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Runs work(0) … work(count − 1) in threads that start together, each with its own database connection.

    Returns results in order; an exception is a result.
    """
    gate = threading.Barrier(count)

    def one(index: int) -> Any:
        try:
            gate.wait(timeout=30)
            return work(index)
        except Exception as error:  # the caller looks at it
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))
