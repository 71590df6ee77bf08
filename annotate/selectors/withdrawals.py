"""Before and after a withdrawal: what a person wrote, what it would reach, and what was withdrawn so far."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.utils.translation import gettext as _

from annotate.errors import Invalid
from annotate.models import (
    Draft,
    Membership,
    Project,
    Prompt,
    Ranking,
    Response,
    Review,
    Skip,
    Snapshot,
    SnapshotRanking,
    TaskFlag,
    TaskResponse,
    User,
    Withdrawal,
)
from annotate.selectors.dependents import models_from
from annotate.selectors.phrases import Found
from annotate.selectors.record_builder import PSEUDONYM_CHARACTERS, pseudonym_of

Kind = Withdrawal.Kind


@dataclass(frozen=True, slots=True)
class Reach:
    """What a withdrawal would take: how many of what, which frozen snapshots hold any of it, and models from those."""

    counts: dict[str, int]
    snapshots: Sequence[Snapshot]
    models: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        named = [{"snapshot": one.pk, "name": one.name} for one in self.snapshots]
        return {"counts": self.counts, "snapshots": named, "models": list(self.models)}


# --- what it would reach ----------------------------------------------------------------------------------------------


def written_by(project: Project, annotator: User) -> dict[str, int]:
    """How much a person wrote in a project that is not withdrawn; by the names of the log of withdrawals."""
    of_tasks: dict[str, Any] = {"annotator": annotator, "task__project": project}
    made = Ranking.objects.filter(project=project, annotator=annotator, withdrawn_at=None)
    counts: dict[str, int] = made.aggregate(
        rankings=Count("pk"),
        answers=Count("task", distinct=True),
        extras=Count("pk", filter=Q(counted=False)),
        rationales=Count("pk", filter=Q(rationale__isnull=False)),
        rewrites=Count("pk", filter=Q(rewrite_text__isnull=False)),
    )
    reviews = Review.objects.filter(reviewer=annotator, ranking__project=project, withdrawn_at=None)
    return counts | {
        "drafts": Draft.objects.filter(**of_tasks).count(),
        "skip_notes": Skip.objects.filter(**of_tasks).exclude(note="").count(),
        "flag_notes": TaskFlag.objects.filter(**of_tasks).exclude(note="").count(),
        "review_notes": reviews.exclude(note="").count(),
    }


def reach_of_annotator(project: Project, annotator: User) -> Reach:
    """What withdrawing all that a person wrote would reach."""
    return _reach(project, written_by(project, annotator), Q(ranking__annotator=annotator))


def reach_of_ranking(ranking: Ranking) -> Reach:
    """What withdrawing an answer, in all its revisions, would reach."""
    of = Q(ranking__task=ranking.task_id, ranking__annotator=ranking.annotator_id)
    chain = Ranking.objects.filter(task=ranking.task_id, annotator=ranking.annotator_id, withdrawn_at=None)
    return _reach(ranking.project, {"rankings": chain.count()}, of)


def reach_of_prompt(prompt: Prompt) -> Reach:
    """What withdrawing a prompt would reach. Snapshots that hold it as a demonstration or bare prompt alone are found
    when it is withdrawn: that needs their files."""
    rankings = Ranking.objects.filter(task__prompt=prompt, withdrawn_at=None).count()
    responses = prompt.responses.filter(withdrawn_at=None).count()
    counts = {"prompts": int(prompt.withdrawn_at is None), "responses": responses, "rankings": rankings}
    return _reach(prompt.project, counts, Q(ranking__task__prompt=prompt))


def reach_of_response(response: Response) -> Reach:
    """What withdrawing a response would reach."""
    standing = Ranking.objects.filter(task__task_responses__response=response, withdrawn_at=None)
    counts = {"responses": int(response.withdrawn_at is None), "rankings": standing.count()}
    return _reach(response.prompt.project, counts, Q(ranking__task__task_responses__response=response))


def reach_of_found(project: Project, found: Sequence[Found]) -> Reach:
    """What withdrawing all of this would reach, each thing counted once. Of snapshots as reach_of_prompt."""
    by_kind = {kind: [one.id for one in found if one.kind == kind] for kind in {one.kind for one in found}}
    prompts = set(by_kind.pop("prompt", ())) | {
        one.prompt for one in found if one.kind == "demonstration" and one.prompt is not None
    }
    chosen, said = by_kind.pop("response", []), by_kind.pop("ranking", [])
    responses = Response.objects.filter(Q(prompt__in=prompts) | Q(pk__in=chosen), withdrawn_at=None)
    chain = Ranking.objects.filter(pk__in=said, task=OuterRef("task"), annotator=OuterRef("annotator"))
    taken = TaskResponse.objects.filter(Q(task__prompt__in=prompts) | Q(response__in=chosen)).values("task")
    rankings = Ranking.objects.filter(Q(task__in=taken) | Exists(chain), project=project, withdrawn_at=None)
    counts = {"prompts": len(prompts), "responses": responses.count(), "rankings": rankings.count()}
    counts |= {f"{kind}s": len(ids) for kind, ids in sorted(by_kind.items()) if kind != "demonstration"}
    return _reach(project, counts, Q(ranking__in=rankings))


def _reach(project: Project, counts: dict[str, int], of: Q) -> Reach:
    held = SnapshotRanking.objects.filter(of, snapshot=OuterRef("pk"), ranking__withdrawn_at=None)
    frozen = Snapshot.objects.filter(Exists(held), project=project, state=Snapshot.State.FROZEN)
    snapshots = list(frozen.order_by("pk"))
    return Reach(counts, snapshots, models_from([one.pk for one in snapshots]))


# --- who and what -----------------------------------------------------------------------------------------------------


def annotator_named(project: Project, name: str, *, key: str = "") -> User:
    """Whoever is or was a member, or has ranked here, by user name or by the pseudonym that exports (of this key) use.

    Raises:
        Invalid: nobody here is called so.
    """
    made = Ranking.objects.filter(project=project, annotator=OuterRef("pk"))
    member = Membership.objects.filter(project=project, user=OuterRef("pk"))
    named = User.objects.filter(Exists(member) | Exists(made), username=name).first()
    if named is None and len(name) == PSEUDONYM_CHARACTERS:
        people = set(Membership.objects.filter(project=project).values_list("user", flat=True))
        people |= set(Ranking.objects.filter(project=project).order_by().values_list("annotator", flat=True).distinct())
        found = [pk for pk in sorted(people) if pseudonym_of(project, pk, key=key) == name]
        named = User.objects.filter(pk__in=found).first()
    if named is None:
        words = _("Nobody who is or was here has this name or pseudonym.")
        raise Invalid(words, fields={"annotator": words})
    return named


def withdrawals_of(project: Project) -> QuerySet[Withdrawal]:
    """The log, oldest first."""
    return Withdrawal.objects.filter(project=project).select_related("annotator", "by").order_by("pk")


def withdrawal_content(row: Withdrawal) -> dict[str, Any]:
    """A row of the log as JSON types: who, what kind, how much, when; never the text."""
    return {
        "id": row.pk,
        "kind": row.kind,
        "annotator": row.annotator.username if row.annotator else None,
        "ranking": str(row.ranking_id) if row.ranking_id else None,
        "prompt": str(row.prompt_id) if row.prompt_id else None,
        "response": str(row.response_id) if row.response_id else None,
        "counts": row.counts,
        "by": row.by.username if row.by else None,
        "reason": row.reason,
        "started_at": row.started_at.isoformat(),
        "finished_at": row.finished_at.isoformat() if row.finished_at else None,
    }


def withdrawal_that_took(thing: Ranking | Prompt | Response) -> Withdrawal | None:
    """The row of the log under which a withdrawn thing went; None if it went before there was a log."""
    if isinstance(thing, Prompt):
        of = Q(kind=Kind.PROMPT, prompt=thing)
    elif isinstance(thing, Response):
        of = Q(kind=Kind.RESPONSE, response=thing) | Q(kind=Kind.PROMPT, prompt=thing.prompt_id)
    else:
        responses = Response.objects.filter(entries__ranking=thing)
        of = Q(kind=Kind.RANKING, ranking__task=thing.task_id, annotator=thing.annotator_id)
        of |= Q(kind=Kind.ANNOTATOR, annotator=thing.annotator_id, project=thing.project_id)
        of |= Q(kind=Kind.PROMPT, prompt=thing.task.prompt_id) | Q(kind=Kind.RESPONSE, response__in=responses)
    return Withdrawal.objects.filter(of).select_related("annotator", "by").order_by("-pk").first()
