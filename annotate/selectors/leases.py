"""What an annotator is shown."""

import json
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from django.db.models import Exists, OuterRef

from annotate.models import (
    Draft,
    Lease,
    Project,
    ProjectVersion,
    Prompt,
    Ranking,
    RankingTask,
    Response,
    Skip,
    Slot,
    User,
)
from annotate.prepared import prepared_cursor
from annotate.selectors.rules import columns_of, version_of_row

# One statement for what would be four: an annotator waits for it after every answer. For one lease, not for a list:
# lists of unknown length would be planned anew each time, and planning this takes several times as long as running it.
_SHOWN = f"""
    SELECT lease.id, lease.task_id, lease.presented_order, slot.expires_at, prompt.messages, prompt.language,
        draft.version, draft.body, shown.texts, shown.thinking, shown.models, {columns_of("version")}
    FROM annotate_lease lease
    JOIN annotate_slot slot ON slot.lease_id = lease.id
    JOIN annotate_projectversion version ON version.id = lease.version_id
    JOIN annotate_rankingtask task ON task.id = lease.task_id
    JOIN annotate_prompt prompt ON prompt.id = task.prompt_id
    LEFT JOIN annotate_draft draft ON draft.task_id = lease.task_id AND draft.annotator_id = lease.annotator_id
    CROSS JOIN LATERAL (
        SELECT array_agg(response.text ORDER BY place) AS texts,
            array_agg(response.thinking ORDER BY place) AS thinking,
            array_agg(response.model ORDER BY place) AS models
        FROM unnest(lease.presented_order) WITH ORDINALITY AS presented(id, place)
        JOIN annotate_response response ON response.id = presented.id
    ) shown
    WHERE lease.id = %s
"""


def lease_contents(leases: Sequence[uuid.UUID]) -> list[dict[str, Any]]:
    """Everything the holder of leased slots needs, as JSON types; leases that hold no slot any more are left out.

    Responses come in the order stored with the lease. The model's name and the thinking text are there only if the
    rules show them; thinking that exists but is hidden is said by `thinking_hidden`.
    """
    found = []
    with prepared_cursor() as cursor:
        for lease in leases:
            cursor.execute(_SHOWN, [lease])
            found += [_shown(row) for row in cursor.fetchall()]
    return found


def _shown(row: Sequence[Any]) -> dict[str, Any]:
    """One row of _SHOWN."""
    pk, task, order, expires_at, messages, language, draft_version, draft_body, *told = row
    texts, thinking, models, *version = told
    responses = {
        response: Response(pk=response, text=text, thinking=thought, model=model)
        for response, text, thought, model in zip(order, texts, thinking, models, strict=True)
    }
    shown = shown_content(
        Lease(pk=pk, task_id=task, presented_order=order),
        prompt=Prompt(messages=json.loads(messages), language=language),
        version=version_of_row(version),
        responses=responses,
    )
    draft = None if draft_version is None else _draft(draft_version, json.loads(draft_body))
    return shown | {"expires_at": expires_at.isoformat(), "draft": draft}


def lease_content(slot: Slot) -> dict[str, Any]:
    """As lease_contents, for a leased slot."""
    assert slot.lease_id is not None
    return lease_contents([slot.lease_id])[0]


def past_lease_content(lease: Lease) -> dict[str, Any]:
    """What the annotator saw under a lease, whether it still holds or not; without expiry and draft."""
    responses = _responses(lease.presented_order)
    return shown_content(lease, prompt=lease.task.prompt, version=lease.version, responses=responses)


def stranded_content(*, user: User, project: Project) -> dict[str, Any] | None:
    """What the user began here and lost the slot of, with the draft, as past_lease_content; the one saved last.

    Of open tasks alone that the user holds no slot of, did not skip and has not ranked. Under the last lease.
    """
    drafts = Draft.objects.filter(annotator=user, task__project=project, task__prompt__withdrawn_at=None)
    for model in (Skip, Ranking):
        drafts = drafts.exclude(Exists(model.objects.filter(task=OuterRef("task"), annotator=user)))
    drafts = drafts.exclude(Exists(Slot.objects.filter(task=OuterRef("task"), holder=user)))
    draft = drafts.filter(task__state=RankingTask.State.OPEN).order_by("-updated_at", "-pk").first()
    if draft is None:
        return None
    leases = Lease.objects.select_related("task__prompt", "version").filter(task=draft.task_id, annotator=user)
    lease = leases.order_by("-leased_at")[:1].get()  # a draft is saved under a lease alone
    return past_lease_content(lease) | {"draft": _draft(draft.version, draft.body)}


def own_lease(*, user: User, project: Project, lease_id: uuid.UUID) -> Lease | None:
    """The user's own lease in this project, whether it still holds or not."""
    return Lease.objects.filter(pk=lease_id, annotator=user, task__project=project).first()


def response_texts(lease: Lease) -> dict[str, str]:
    """The texts of the responses that the lease shows, by id."""
    return {str(pk): response.text for pk, response in _responses(lease.presented_order).items()}


def shown_content(
    lease: Lease, *, prompt: Prompt, version: ProjectVersion, responses: dict[int, Response]
) -> dict[str, Any]:
    """A task under these rules, in the lease's order; reads nothing, so a preview may show what no row stands for."""
    return {
        "id": str(lease.pk),
        "task": lease.task_id,
        "version": version.number,
        "rules": rules_content(version),
        "prompt": prompt.messages,
        "language": prompt.language,
        "responses": [_response(responses[pk], version=version) for pk in lease.presented_order],
    }


def _responses(pks: Iterable[int]) -> dict[int, Response]:
    wanted = Response.objects.only("text", "thinking", "model")
    return wanted.in_bulk(list(pks))


def _response(response: Response, *, version: ProjectVersion) -> dict[str, Any]:
    return {
        "id": str(response.pk),
        "text": response.text,
        "thinking": response.thinking if version.show_thinking else None,
        "thinking_hidden": bool(response.thinking) and not version.show_thinking,
        "model": response.model if version.show_models else None,
    }


def revision_draft(ranking: Ranking) -> dict[str, Any] | None:
    """The annotator's draft of the next revision of this ranking, begun and not submitted."""
    draft = Draft.objects.filter(task=ranking.task_id, annotator=ranking.annotator_id).first()
    return _draft(draft.version, draft.body) if draft and str(draft.body.get("revises")) == str(ranking.pk) else None


def _draft(version: int, body: Any) -> dict[str, Any]:
    """A draft as pages and programs get it."""
    return {"version": version, "body": body}


def rules_content(version: ProjectVersion) -> dict[str, Any]:
    """What an answer may hold, for pages and API."""
    return {
        "ties": version.allow_ties,
        "partial": version.allow_partial,
        "all_bad": version.allow_all_bad,
        "strength": version.strength,
        "rationale": version.rationale,
        "rewrite": version.allow_rewrite,
        "criteria": version.criteria,
        "flags": version.flags,
    }
