"""Small rows for tests, written the way the services write them."""

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

from django.db import transaction

from annotate.interchange.native import record_from_object
from annotate.models import (
    Project,
    Prompt,
    RankingTask,
    Response,
    Role,
    SplitGroup,
    User,
)
from annotate.preferences import split_for_group
from annotate.services.projects import add_member, create_project
from annotate.services.tasks import create_task

_numbers = itertools.count(1)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_user(username: str | None = None, *, project: Project | None = None, **fields: Any) -> User:
    """A user whose password is the username; with `project` a member, as `role` (annotator) and `engineer` say."""
    role, engineer = fields.pop("role", Role.ANNOTATOR), fields.pop("engineer", False)
    name = username or f"user{next(_numbers)}"
    user = User.objects.create_user(username=name, password=name, **fields)
    if project is not None:
        add_member(project=project, user=user, role=role, engineer=engineer)
    return user


def make_project(slug: str | None = None, *, rules: dict[str, Any] | None = None, **fields: Any) -> Project:
    slug = slug or f"project-{next(_numbers)}"
    return create_project(slug=slug, name=slug.replace("-", " ").capitalize(), rules=rules, **fields)


@transaction.atomic
def make_task(
    project: Project,
    texts: Sequence[str] = ("a good answer", "a middling answer", "a bad answer"),
    *,
    overlap: int = 1,
    question: str | None = None,
    external_id: str | None = None,
    priority: int = RankingTask.Priority.NORMAL,
    language: str = "",
) -> RankingTask:
    """A task with responses r1, r2 … of these texts and `overlap` free slots."""
    question = question or f"Question {next(_numbers)}?"
    split_group, _ = SplitGroup.objects.get_or_create(
        project=project, key_sha256=sha256(question), defaults={"key": question, "split": split_for_group(question)}
    )
    named = [{"id": f"r{number}", "text": text} for number, text in enumerate(texts, 1)]
    record = record_from_object({"prompt": question, "responses": named})
    prompt = Prompt.objects.create(
        project=project,
        external_id=external_id,
        content_sha256=record.content_key,
        messages=list(record.prompt),
        split_group=split_group,
        language=language,
    )
    responses = Response.objects.bulk_create(
        Response(prompt=prompt, key=f"r{number}", text=text, text_sha256=sha256(text))
        for number, text in enumerate(texts, 1)
    )
    return create_task(prompt=prompt, responses=responses, overlap=overlap, priority=priority)
