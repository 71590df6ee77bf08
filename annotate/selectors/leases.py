"""What an annotator is shown."""

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from annotate.models import Draft, Lease, Project, ProjectVersion, Prompt, Ranking, Response, Slot, User


def lease_contents(slots: Sequence[Slot]) -> list[dict[str, Any]]:
    """Everything the holder of leased slots needs, as JSON types, in two queries for all of them.

    Responses come in the order stored with the lease. The model's name and the thinking text are there only if the
    rules show them; thinking that exists but is hidden is said by `thinking_hidden`. The slots come with their lease,
    version and task's prompt (services.queue.next_leases) and have one holder.
    """
    responses = _responses(pk for slot in slots if slot.lease for pk in slot.lease.presented_order)
    drafts = {
        draft.task_id: draft
        for draft in Draft.objects.filter(
            task__in=[slot.task_id for slot in slots], annotator__in={slot.holder_id for slot in slots}
        )
    }
    found = []
    for slot in slots:
        assert slot.lease is not None and slot.version is not None and slot.expires_at is not None
        shown = shown_content(slot.lease, prompt=slot.task.prompt, version=slot.version, responses=responses)
        shown |= {"expires_at": slot.expires_at.isoformat(), "draft": draft_content(drafts.get(slot.task_id))}
        found.append(shown)
    return found


def lease_content(slot: Slot) -> dict[str, Any]:
    """As lease_contents, for one slot."""
    return lease_contents([slot])[0]


def past_lease_content(lease: Lease) -> dict[str, Any]:
    """What the annotator saw under a lease, whether it still holds or not; without expiry and draft."""
    responses = _responses(lease.presented_order)
    return shown_content(lease, prompt=lease.task.prompt, version=lease.version, responses=responses)


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
    return draft_content(draft) if draft and str(draft.body.get("revises")) == str(ranking.pk) else None


def draft_content(draft: Draft | None) -> dict[str, Any] | None:
    """A draft as pages and programs get it."""
    return {"version": draft.version, "body": draft.body} if draft else None


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
