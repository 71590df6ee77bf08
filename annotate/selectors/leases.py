"""What an annotator is shown."""

from typing import Any

from annotate.models import Draft, ProjectVersion, Response, Slot


def lease_content(slot: Slot) -> dict[str, Any]:
    """Everything the holder of a leased slot needs, as JSON types.

    Responses come in the order stored with the lease. The model's name and the thinking text are there only if the
    rules show them; thinking that exists but is hidden is said by `thinking_hidden`.
    """
    assert slot.lease is not None and slot.version is not None and slot.expires_at is not None
    version = slot.version
    responses = Response.objects.in_bulk(slot.lease.presented_order)
    draft = Draft.objects.filter(task=slot.task_id, annotator=slot.holder_id).first()
    return {
        "id": str(slot.lease_id),
        "task": slot.task_id,
        "expires_at": slot.expires_at.isoformat(),
        "version": version.number,
        "rules": rules_content(version),
        "prompt": slot.task.prompt.messages,
        "responses": [_response(responses[pk], version=version) for pk in slot.lease.presented_order],
        "draft": {"version": draft.version, "body": draft.body} if draft else None,
    }


def _response(response: Response, *, version: ProjectVersion) -> dict[str, Any]:
    return {
        "id": str(response.pk),
        "text": response.text,
        "thinking": response.thinking if version.show_thinking else None,
        "thinking_hidden": bool(response.thinking) and not version.show_thinking,
        "model": response.model if version.show_models else None,
    }


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
