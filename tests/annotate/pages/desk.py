"""A person at the ranking page, without a browser."""

import uuid
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from annotate.models import (
    Project,
    User,
)
from tests.annotate.factories import make_project, make_user


@pytest.fixture
def project() -> Project:
    return make_project("tales", rules={"guidelines": "Rank by **helpfulness**."})


@pytest.fixture
def bob(project: Project) -> User:
    return make_user("bob", project=project)


class Desk:
    """A person's browser on a project's ranking page."""

    def __init__(self, user: User, project: Project) -> None:
        self.client, self.project = Client(), project
        self.client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")

    def post(self, name: str, body: Any = None, **headers: str) -> Any:
        address = reverse(name, args=[self.project.slug])
        return self.client.post(address, body or {}, content_type="application/json", headers=headers)

    def next(self, **body: Any) -> Any:
        answer = self.post("rank_next", body)
        assert answer.status_code == 200, answer.content
        return answer.json()

    def send(self, body: dict[str, Any], *, key: str = "") -> Any:
        return self.post("rank_submit", body, **{"Idempotency-Key": key or str(uuid.uuid4())})

    def submit(self, task: dict[str, Any], *, key: str = "", **body: Any) -> Any:
        answer = self.send(answer_to(task) | body, key=key)
        assert answer.status_code == 200, answer.content
        return answer.json()

    def back(self, before: str | None = None) -> Any:
        return self.post("rank_back", {"before": before}).json()["task"]

    def draft(self, lease: str, body: dict[str, Any], *, version: int = 0) -> Any:
        return self.client.put(
            f"/api/v1/leases/{lease}/draft/", {"version": version, "body": body}, content_type="application/json"
        )


@pytest.fixture
def desk(bob: User, project: Project) -> Desk:
    return Desk(bob, project)


def answer_to(task: dict[str, Any]) -> dict[str, Any]:
    return {"lease": task["lease"], "ranking": [[one] for one in task["order"]], "unranked": [], "seconds": 12.5}


def revision_of(task: dict[str, Any]) -> dict[str, Any]:
    said = {name: value for name, value in task["answer"].items() if value is not None}
    return said | {"revises": task["revises"], "unranked": unranked_of(task)}


def unranked_of(task: dict[str, Any]) -> list[str]:
    placed = {one for tier in task["answer"]["ranking"] for one in tier}
    return [one for one in task["order"] if one not in placed]


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def close(project: Project) -> None:
    Project.objects.filter(pk=project.pk).update(archived_at=timezone.now())
