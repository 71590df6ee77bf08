"""A project with its cast, and clients that call the API as one of them."""

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from rest_framework.test import APIClient

from annotate.api import exports
from annotate.models import ApiToken, Project, RankingTask, Role, User
from annotate.services.tokens import create_token
from tests.annotate.factories import make_project, make_task, make_user

ALL_SCOPES = tuple(ApiToken.Scope.values)
ClientFor = Callable[..., APIClient]


@dataclass(frozen=True)
class Cast:
    """Alice manages and is an engineer, Bob and Dora rank, Rita reviews, Vera watches, Eve watches and is an engineer;
    Charlie is in a project of his own; Sue is a superuser."""

    alice: User
    bob: User
    dora: User
    rita: User
    vera: User
    eve: User
    charlie: User
    sue: User


@pytest.fixture(autouse=True)
def nothing_left_over(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of log-in attempts and places for exports do not leak from test to test.

    (Clearing the cache would clear the other workers' too: they share one Valkey.)
    """
    settings.CACHES = {"default": settings.CACHES["default"] | {"KEY_PREFIX": f"test-{uuid.uuid4()}"}}
    monkeypatch.setattr(exports, "_room", threading.BoundedSemaphore(exports.AT_ONCE))


@pytest.fixture
def project(db: None) -> Project:
    return make_project("tales", overlap=2)


@pytest.fixture
def cast(project: Project) -> Cast:
    return make_cast(project)


def make_cast(project: Project) -> Cast:
    elsewhere = make_project("elsewhere")
    return Cast(
        alice=make_user("alice", project=project, role=Role.MANAGER, engineer=True),
        bob=make_user("bob", project=project),
        dora=make_user("dora", project=project),
        rita=make_user("rita", project=project, role=Role.REVIEWER),
        vera=make_user("vera", project=project, role=Role.VIEWER),
        eve=make_user("eve", project=project, role=Role.VIEWER, engineer=True),
        charlie=make_user("charlie", project=elsewhere, role=Role.MANAGER, engineer=True),
        sue=make_user("sue", is_superuser=True, is_staff=True),
    )


@pytest.fixture
def task(project: Project) -> RankingTask:
    return make_task(project, overlap=2)


@pytest.fixture
def client_for() -> ClientFor:
    return token_client


def token_client(user: User, scopes: tuple[str, ...] = ALL_SCOPES) -> APIClient:
    """A client with a fresh token of the user."""
    _, secret = create_token(user=user, name="test", scopes=scopes)
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {secret}")
    return client
