"""Prompts with their responses, for those who bring them in and look after them."""

from typing import Any

from django.db.models import Prefetch, QuerySet

from annotate.models import Project, Prompt, Response


def prompts_of(project: Project) -> QuerySet[Prompt]:
    """The project's prompts, loaded with what prompt_content reads."""
    responses = Prefetch("responses", queryset=Response.objects.order_by("pk"))
    return Prompt.objects.filter(project=project).select_related("split_group").prefetch_related(responses)


def open_prompts(project: Project) -> QuerySet[Prompt]:
    """The project's prompts that are not withdrawn."""
    return Prompt.objects.filter(project=project, withdrawn_at=None).select_related("split_group")


def group_named_of(prompt: Prompt) -> str | None:
    """The key of the prompt's split group, where it was given; None where it follows from the messages."""
    return prompt.split_group.key or None


def prompt_content(prompt: Prompt) -> dict[str, Any]:
    """A prompt and its responses as JSON types. Rankings name a response by `id`; `key` is what its record said."""
    return {
        "id": str(prompt.pk),
        "external_id": prompt.external_id,
        "prompt": prompt.messages,
        "responses": [_response(response) for response in prompt.responses.all()],
        "split": prompt.split_group.split,
        "language": prompt.language,
        "tags": prompt.tags,
        "created_at": prompt.created_at.isoformat(),
        "withdrawn_at": prompt.withdrawn_at.isoformat() if prompt.withdrawn_at else None,
    }


def _response(response: Response) -> dict[str, Any]:
    return {
        "id": str(response.pk),
        "key": response.key,
        "text": response.text,
        "thinking": response.thinking,
        "model": response.model,
        "settings": response.settings,
    }
