"""What every withdrawal is made of: rows are locked and blanked, snapshots and cached pages follow, the feed is told.

For callers that hold the project's withdrawals (locks.lock_withdrawals) in a transaction that ends with `record`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

from django.db import connection, transaction
from django.db.models import Count, Exists, OuterRef, QuerySet
from django.db.models.functions import Now

from annotate.models import (
    Change,
    Demonstration,
    Draft,
    IdentityLeak,
    Project,
    Prompt,
    Ranking,
    RankingTask,
    Response,
    Review,
    Skip,
    Slot,
    SplitGroup,
    TaskFlag,
    User,
    Withdrawal,
)
from annotate.rendered import cache_keys, forget
from annotate.services.counters import record_changes
from annotate.services.events import tell_of_withdrawals
from annotate.services.locks import lock_open_slots
from annotate.services.snapshots import snapshots_holding, withdraw_snapshot

Changes = list[dict[str, Any]]

# The first answer to a submit says what was submitted, and is kept for whoever repeats the request.
_FORGET_ANSWERS = """
    UPDATE annotate_idempotencykey SET answer = answer || '{"rationale": null, "rewrite": null}'
    WHERE user_id = ANY (%(annotators)s) AND answer ->> 'id' ~ '^[0-9]{1,18}$'
    AND (answer ->> 'rationale' IS NOT NULL OR answer ->> 'rewrite' IS NOT NULL)
    AND EXISTS (
        SELECT 1 FROM annotate_ranking ranking WHERE ranking.id = (answer ->> 'id')::bigint
        AND ranking.annotator_id = user_id AND ranking.withdrawn_at IS NOT NULL)
"""


def locked_rankings(rankings: QuerySet[Ranking]) -> list[int]:
    """The ids of these rankings, locked, and of revisions of theirs that were being written while they were.

    Whoever revises holds the last revision; whoever waited for it has not seen the new one, and looks again. After
    that nobody can add one, because the last revision is locked here.
    """
    seen: list[int] | None = None
    while True:
        found = list(rankings.select_for_update(of=("self",)).order_by("pk").values_list("pk", flat=True))
        if found == seen:
            return found
        seen = found


def blank_rankings(project: Project, rankings: Collection[int], *, prompts: Collection[int] = ()) -> Changes:
    """Blanks what locked rankings say in words and what reviewers said of them; returns the changes to record.

    Snapshots that hold any of them, or a line about one of `prompts`, are withdrawn.
    """
    for snapshot in snapshots_holding(project=project, rankings=rankings, prompts=prompts):
        withdraw_snapshot(snapshot=snapshot)
    _forget_on_commit(_texts_of_rankings(rankings))
    Review.objects.filter(ranking__in=rankings, withdrawn_at=None).update(note="", withdrawn_at=Now())
    Ranking.objects.filter(pk__in=rankings).update(
        rationale=None, rewrite_of=None, rewrite_text=None, extra={}, withdrawn_at=Now()
    )
    return [{"kind": Change.Kind.WITHDRAWAL, "ranking_id": pk} for pk in rankings]


def blank_responses(responses: QuerySet[Response]) -> int:
    """Blanks responses that are not withdrawn yet, and returns how many."""
    IdentityLeak.objects.filter(response__in=responses.values("pk")).delete()  # the phrase is of the text
    _forget_on_commit(text or "" for texts in responses.values_list("text", "thinking") for text in texts)
    return responses.update(text="", thinking=None, extra={}, withdrawn_at=Now())


def blank_prompts(prompts: Collection[int]) -> Changes:
    """Blanks locked prompts with responses and demonstrations, and the names of split groups that have no other."""
    blank_responses(Response.objects.filter(prompt__in=prompts, withdrawn_at=None))
    demonstrations = Demonstration.objects.filter(prompt__in=prompts, withdrawn_at=None)
    _forget_on_commit(chain(_messages_of(prompts), demonstrations.values_list("text", flat=True)))
    demonstrations.update(text="", withdrawn_at=Now())
    Prompt.objects.filter(pk__in=prompts).update(
        messages=[], answer=None, tests=None, tags=[], extra={}, withdrawn_at=Now()
    )
    left = Prompt.objects.filter(split_group=OuterRef("pk"), withdrawn_at=None)
    groups = SplitGroup.objects.filter(prompts__in=prompts).exclude(key="").filter(~Exists(left))
    SplitGroup.objects.filter(pk__in=list(groups.values_list("pk", flat=True))).update(key="")
    return [{"kind": Change.Kind.WITHDRAWAL, "prompt_id": pk} for pk in sorted(prompts)]


def end_tasks(tasks: Collection[int], *, state: RankingTask.State) -> None:
    """Takes tasks out of the queue for good, with drafts and with what skips and flags say in words."""
    Slot.objects.filter(pk__in=lock_open_slots(RankingTask.objects.filter(pk__in=tasks))).delete()
    done = dict(Slot.objects.filter(task__in=tasks, beyond_overlap=False).values_list("task").annotate(Count("pk")))
    for overlap in {0, *done.values()}:
        of_this = [task for task in tasks if done.get(task, 0) == overlap]
        RankingTask.objects.filter(pk__in=of_this).update(overlap=overlap, state=state, expected=None)
    Draft.objects.filter(task__in=tasks).delete()
    Skip.objects.filter(task__in=tasks).exclude(note="").update(note="")
    TaskFlag.objects.filter(task__in=tasks).exclude(note="").update(note="")


def forget_answers(annotators: Iterable[int]) -> None:
    """Blanks what is kept of these people's submits for the sake of repeated requests, if the ranking is withdrawn."""
    with connection.cursor() as cursor:
        cursor.execute(_FORGET_ANSWERS, {"annotators": sorted(set(annotators))})


def record(project: Project, changes: Changes) -> None:
    """Tells the feed and the webhooks; the last thing in the transaction."""
    recorded = record_changes(project=project, changes=changes)
    if recorded.has_webhooks:
        tell_of_withdrawals(project, changes, last=recorded.last)


def log(
    project: Project, *, kind: Withdrawal.Kind, by: User | None, reason: str, counts: Mapping[str, int], **of: Any
) -> Withdrawal:
    """Notes a withdrawal that is whole with this transaction. `of`: what it is of."""
    told = {name: count for name, count in counts.items() if count}
    made = Withdrawal.objects.create(
        project=project, kind=kind, by=by, reason=reason, counts=told, finished_at=Now(), **of
    )
    made.refresh_from_db()
    return made


def _messages_of(prompts: Collection[int]) -> Iterator[str]:
    for messages in Prompt.objects.filter(pk__in=prompts).values_list("messages", flat=True).iterator():
        yield from (message["content"] for message in messages)


def _texts_of_rankings(rankings: Collection[int]) -> Iterator[str]:
    said = Ranking.objects.filter(pk__in=rankings).values_list("rationale", "rewrite_text")
    yield from (text or "" for texts in said.iterator() for text in texts)


def _forget_on_commit(texts: Iterable[str]) -> None:
    """What pages made of the texts goes from the cache too, once the texts are gone."""
    keys = cache_keys(texts)
    transaction.on_commit(partial(forget, keys), robust=True)
