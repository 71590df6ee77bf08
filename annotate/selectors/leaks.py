"""Responses that give away their maker, for managers alone: nothing here may reach whoever ranks."""

from dataclasses import dataclass

from django.db.models import Min, QuerySet

from annotate.models import IdentityLeak, Project, RankingTask, TaskResponse


@dataclass(frozen=True, slots=True)
class LeakingTask:
    """A task with a response that says who made it, and that no manager has settled."""

    leak: int
    task: int
    response: str
    phrase: str


def leaking_tasks(project: Project, *, limit: int | None = None) -> list[LeakingTask]:
    """Unsettled leaks with the first task that shows the response, oldest task first; at most `limit` if given.

    `response` is the response's key. Tasks that were closed are left out.
    """
    leak = "response__identity_leak"
    shown = TaskResponse.objects.filter(**{f"{leak}__project": project, f"{leak}__settled_at__isnull": True})
    rows = shown.exclude(task__state=RankingTask.State.CLOSED).values_list(leak, "response__key", f"{leak}__phrase")
    found = rows.annotate(first=Min("task")).order_by("first", leak)
    wanted = found[:limit] if limit is not None else found
    return [LeakingTask(leak=pk, task=task, response=key, phrase=phrase) for pk, key, phrase, task in wanted]


def unsettled_leaks(project: Project) -> QuerySet[IdentityLeak]:
    """The project's leaks that no manager has settled."""
    return IdentityLeak.objects.filter(project=project, settled_at=None)
