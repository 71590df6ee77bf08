"""Withdrawal, the one way to remove: texts are blanked, hashes stay, the feed says so, and snapshots lose their files.

Of one ranking, one response, one prompt; services.withdrawn_people is for all that a person wrote. Everything here
locks the project's withdrawals, so that no snapshot is recorded past one, is logged, and ends with the feed.
"""

from collections.abc import Collection
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from annotate.errors import Conflict, Invalid
from annotate.models import (
    Demonstration,
    Draft,
    Project,
    Prompt,
    Ranking,
    RankingTask,
    Response,
    Review,
    Skip,
    TaskFlag,
    User,
    Withdrawal,
)
from annotate.selectors.phrases import Found
from annotate.services.blanking import (
    blank_prompts,
    blank_rankings,
    blank_responses,
    end_tasks,
    forget_answers,
    locked_rankings,
    log,
    record,
)
from annotate.services.locks import lock_withdrawals

Kind = Withdrawal.Kind


def check_reason(reason: str, *, without: str = "") -> None:
    """Refuses a reason that the log cannot hold, or one that holds the text which is to go.

    Raises:
        Invalid: names `reason`.
    """
    field = Withdrawal._meta.get_field("reason")
    words = ""
    if len(reason) > (field.max_length or 0) or "\0" in reason:
        words = _("At most %(count)d characters.") % {"count": field.max_length}
    elif without and without.casefold() in reason.casefold():
        words = _("The reason is kept; do not write in it what is to go.")
    if words:
        raise Invalid(words, fields={"reason": words})


@transaction.atomic
def withdraw_ranking(*, ranking: Ranking, by: User | None = None, reason: str = "") -> Withdrawal:
    """Withdraws an annotator's answer to a task, in all its revisions. Its slot stays done.

    Blanks rationale, rewrite, unknown keys and the notes of its reviews; the order itself stays in the database but
    leaves every export. Snapshots that hold it are withdrawn. `by` is whoever asked for it, `reason` is for the log.

    Raises:
        Conflict: it was withdrawn before (`withdrawn`).
    """
    project, annotator = ranking.project, ranking.annotator
    lock_withdrawals(project)
    rankings = locked_rankings(Ranking.objects.filter(task=ranking.task_id, annotator=annotator, withdrawn_at=None))
    if not rankings:
        raise Conflict(_("This ranking was withdrawn before."), code="withdrawn")
    drafts, _rows = Draft.objects.filter(task=ranking.task_id, annotator=annotator).delete()
    changes = blank_rankings(project, rankings)
    forget_answers([annotator.pk])
    counts = {"rankings": len(rankings), "answers": 1, "drafts": drafts}
    of = {"ranking": ranking, "annotator": annotator}
    done = log(project, kind=Kind.RANKING, by=by, reason=reason, counts=counts, **of)
    record(project, changes)
    return done


@transaction.atomic
def withdraw_response(*, response: Response, by: User | None = None, reason: str = "") -> Withdrawal:
    """Withdraws one response, and every ranking of the tasks that it stands in: they say where it stood.

    Those tasks are closed and not opened again, and no import brings rankings to them. The prompt and its other
    responses stay. Snapshots that hold one of the rankings are withdrawn.

    Raises:
        Conflict: it was withdrawn before (`withdrawn`); or (code `busy`) as withdraw_prompt.
    """
    project = response.prompt.project
    lock_withdrawals(project)
    one = Response.objects.filter(pk=response.pk, withdrawn_at=None)
    if not one.select_for_update(of=("self",)).exists():
        raise Conflict(_("This response was withdrawn before."), code="withdrawn")
    tasks = list(RankingTask.objects.filter(task_responses__response=response).values_list("pk", flat=True))
    end_tasks(tasks, state=RankingTask.State.CLOSED)
    rankings, changes = _blank_rankings_of(project, tasks)
    blank_responses(one)
    counts = {"rankings": len(rankings), "responses": 1, "tasks": len(tasks)}
    of = {"response": response, "prompt": response.prompt}
    done = log(project, kind=Kind.RESPONSE, by=by, reason=reason, counts=counts, **of)
    record(project, changes)
    return done


@transaction.atomic
def withdraw_prompt(*, prompt: Prompt, by: User | None = None, reason: str = "") -> Withdrawal:
    """Withdraws a prompt with its responses, demonstrations and the rankings of its tasks.

    Its tasks are held and lose every slot that is not done; drafts go, notes of skips and flags are blanked. Snapshots
    that hold any of it are withdrawn. `by` is whoever asked for it.

    Raises:
        Conflict: it was withdrawn before (`withdrawn`); or (code `busy`) somebody was handing a task of it in or back
            for seconds.
    """
    project = prompt.project
    lock_withdrawals(project)
    if not Prompt.objects.select_for_update().filter(pk=prompt.pk, withdrawn_at=None).exists():
        raise Conflict(_("This prompt was withdrawn before."), code="withdrawn")
    responses = prompt.responses.filter(withdrawn_at=None).count()
    rankings = Ranking.objects.filter(task__prompt=prompt, withdrawn_at=None)
    counts = {"prompts": 1, "responses": responses, "rankings": rankings.count()}
    done = log(project, kind=Kind.PROMPT, by=by, reason=reason, counts=counts, prompt=prompt)
    withdraw_prompts(project=project, prompts=[prompt.pk])
    return done


def withdraw_prompts(*, project: Project, prompts: Collection[int]) -> None:
    """As withdraw_prompt, for several that are locked and not yet withdrawn, in a transaction that ends with this."""
    tasks = list(RankingTask.objects.filter(prompt__in=prompts).order_by("pk").values_list("pk", flat=True))
    end_tasks(tasks, state=RankingTask.State.HELD)
    _rankings, changes = _blank_rankings_of(project, tasks, prompts=prompts)
    record(project, changes + blank_prompts(prompts))


@transaction.atomic
def withdraw_found(*, project: Project, found: Found, by: User | None = None, reason: str = "") -> Withdrawal | None:
    """Withdraws what a search for a phrase found: the ranking, response or prompt (of a demonstration its prompt), the
    words of a note, or a draft. None if it went meanwhile, by itself or with something else.

    Raises:
        Conflict: as withdraw_prompt (`busy`).
    """
    asked: dict[str, Any] = {"by": by, "reason": reason}
    try:
        if found.kind == "ranking":
            return withdraw_ranking(ranking=Ranking.objects.get(pk=found.id, project=project), **asked)
        if found.kind == "response":
            return withdraw_response(response=Response.objects.get(pk=found.id, prompt__project=project), **asked)
        if found.kind == "prompt":
            return withdraw_prompt(prompt=Prompt.objects.get(pk=found.id, project=project), **asked)
        if found.kind == "demonstration":
            whole = Demonstration.objects.select_related("prompt").get(pk=found.id, project=project)
            return withdraw_prompt(prompt=whole.prompt, **asked)
    except ObjectDoesNotExist:  # an import was undone
        return None
    except Conflict as refused:
        if refused.code != "withdrawn":
            raise
        return None
    return _withdraw_note(project, found, **asked)


def _withdraw_note(project: Project, found: Found, *, by: User | None, reason: str) -> Withdrawal | None:
    """What has no hash and no place in the feed: a note is blanked, a draft deleted."""
    lock_withdrawals(project)
    kinds: dict[str, Any] = {
        "skip_note": Skip.objects.filter(project=project),
        "flag_note": TaskFlag.objects.filter(task__project=project),
        "review_note": Review.objects.filter(ranking__project=project, withdrawn_at=None),
        "draft": Draft.objects.filter(task__project=project),
    }
    one = kinds[found.kind].filter(pk=found.id)
    row = one.first()
    if row is None:
        return None
    if found.kind == "draft":
        one.delete()
    else:
        one.update(note="", **({"withdrawn_at": Now()} if found.kind == "review_note" else {}))
    writer = row.reviewer if found.kind == "review_note" else row.annotator
    counts = {f"{found.kind}s": 1}
    return log(project, kind=Kind.NOTE, by=by, reason=reason, counts=counts, annotator=writer)


def _blank_rankings_of(
    project: Project, tasks: Collection[int], *, prompts: Collection[int] = ()
) -> tuple[list[int], list[dict[str, object]]]:
    """Every ranking of these tasks that still stands, blanked, with the changes to record."""
    rankings = locked_rankings(Ranking.objects.filter(task__in=tasks, withdrawn_at=None))
    changes = blank_rankings(project, rankings, prompts=prompts)
    forget_answers(Ranking.objects.filter(pk__in=rankings).values_list("annotator", flat=True))
    return rankings, changes
