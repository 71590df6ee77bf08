"""What is told to webhooks: facts and ids, never texts, which are for whoever may export them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from annotate.models import Change, Project, Prompt, Ranking, RankingTask, Slot, Snapshot, Webhook
from annotate.selectors.records import pseudonym_of
from annotate.services.outbox import tell_webhooks, wanted_events

Event = Webhook.Event

_OF_RANKINGS = {
    Change.Kind.RANKING: Event.RANKING_SUBMITTED,
    Change.Kind.REVISION: Event.RANKING_REVISED,
    Change.Kind.WITHDRAWAL: Event.RANKING_WITHDRAWN,
}


def tell_of_ranking(ranking: Ranking, *, kind: str, change: int) -> None:
    """Tells of a ranking or revision, and of its task if that was the last one it wanted.

    After record_changes: whoever closed the last place but one has committed then, so exactly one sees the task done.
    """
    task = RankingTask.objects.select_related("prompt").get(pk=ranking.task_id)
    happened: list[tuple[str, Mapping[str, Any]]] = [
        (_OF_RANKINGS[Change.Kind(kind)], _ranking_data(ranking, task=task, change=change))
    ]
    if kind == Change.Kind.RANKING and _fills_a_place(ranking) and is_complete(task):
        happened.append((Event.TASK_COMPLETED, task_data(task)))
    tell_webhooks(project=ranking.project, happened=happened)


def tell_of_withdrawals(project: Project, changes: Sequence[Mapping[str, Any]], *, last: int) -> None:
    """Tells of what record_changes recorded last: withdrawn rankings and prompts."""
    numbered = list(enumerate(changes, start=last - len(changes) + 1))
    wanted = [one["ranking_id"] for _number, one in numbered if one.get("ranking_id")]
    rankings = Ranking.objects.select_related("annotator", "task__prompt", "project").in_bulk(wanted)
    prompts = Prompt.objects.only("external_id").in_bulk(
        [one["prompt_id"] for _number, one in numbered if one.get("prompt_id")]
    )
    happened: list[tuple[str, Mapping[str, Any]]] = []
    for number, one in numbered:
        if (ranking := rankings.get(one.get("ranking_id") or 0)) is not None:
            data = _ranking_data(ranking, task=ranking.task, change=number)
            happened.append((Event.RANKING_WITHDRAWN, data))
        elif (prompt := prompts.get(one.get("prompt_id") or 0)) is not None:
            data = {"prompt": str(prompt.pk), "external_id": prompt.external_id, "change": number}
            happened.append((Event.PROMPT_WITHDRAWN, data))
    tell_webhooks(project=project, happened=happened)


def tell_of_completed(project: Project, tasks: Iterable[int]) -> None:
    """Tells of those of these tasks that want no further ranking because they want fewer now."""
    if Event.TASK_COMPLETED not in wanted_events(project):
        return
    found = RankingTask.objects.select_related("prompt").filter(pk__in=list(tasks)).order_by("pk")
    happened = [(Event.TASK_COMPLETED, task_data(task)) for task in found if is_complete(task)]
    tell_webhooks(project=project, happened=happened)


def tell_of_snapshot(snapshot: Snapshot, *, event: str) -> None:
    """Tells that a snapshot was frozen or withdrawn."""
    data = {name: getattr(snapshot, name) for name in ("name", "counts", "sha256", "size_bytes", "change")}
    tell_webhooks(project=snapshot.project, happened=[(event, {"snapshot": snapshot.pk} | data)])


def tell_of_run(
    *, project: Project, run: int, name: str, kind: str, state: str, reason: str, model: int | None
) -> None:
    """Tells that a run ended. The one thing of webhooks that training calls, in the transaction that ends the run."""
    data = {"run": run, "name": name, "kind": kind, "state": state, "reason": reason, "model": model}
    tell_webhooks(project=project, happened=[(Event.RUN_FINISHED, data)])


def _fills_a_place(ranking: Ranking) -> bool:
    """Not an extra, and not in a machine's own place."""
    return ranking.slot_id is not None and Slot.objects.filter(pk=ranking.slot_id, beyond_overlap=False).exists()


def is_complete(task: RankingTask) -> bool:
    """Whether the task has a ranking in every place it wants, and one at least."""
    states = set(Slot.objects.filter(task=task, beyond_overlap=False).values_list("state", flat=True))
    return states == {Slot.State.DONE}


def task_data(task: RankingTask) -> dict[str, Any]:
    """A task as webhooks are told of it."""
    places = Slot.objects.filter(task=task, beyond_overlap=False).order_by("number")
    done = places.values_list("current_ranking_id", flat=True)
    return _task_data(task) | {"kind": task.kind, "overlap": task.overlap, "rankings": [str(pk) for pk in done]}


def _task_data(task: RankingTask) -> dict[str, Any]:
    return {"task": task.pk, "prompt": str(task.prompt_id), "external_id": task.prompt.external_id}


def _ranking_data(ranking: Ranking, *, task: RankingTask, change: int) -> dict[str, Any]:
    return {
        "ranking": str(ranking.pk),
        **_task_data(task),
        "revision": ranking.revision,
        "supersedes": None if ranking.supersedes_id is None else str(ranking.supersedes_id),
        "counted": ranking.counted,
        "annotator": pseudonym_of(ranking.project, ranking.annotator_id),
        "annotator_kind": ranking.annotator.kind,
        "change": change,
    }
