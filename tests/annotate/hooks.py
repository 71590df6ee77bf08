"""A project with a webhook, and a server that hears what it is told."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.db.models.functions import Now

from annotate.models import Project, Ranking, Role, Slot, User, Webhook, WebhookDelivery
from annotate.services.queue import next_leases
from annotate.services.webhooks import create_webhook
from tests.annotate.factories import make_project, make_user
from tests.annotate.helpers import submit
from tests.annotate.receivers import Receiver, receiver

ALL = list(Webhook.Event.values)
State = WebhookDelivery.State


@pytest.fixture(autouse=True)
def private_addresses_allowed(settings: Any) -> None:
    settings.WEBHOOK_PRIVATE = True


@pytest.fixture
def project() -> Project:
    return make_project("tales", overlap=2)


@pytest.fixture
def alice(project: Project) -> User:
    return make_user("alice", project=project, role=Role.MANAGER, engineer=True)


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture
def hook(project: Project, alice: User, there: Receiver) -> Webhook:
    return create_webhook(project=project, by=alice, url=there.url, events=ALL)


def rank(project: Project, name: str) -> tuple[Ranking, Slot, User]:
    person = make_user(name, project=project)
    slot = next_leases(project=project, annotator=person)[0]
    return submit(slot, person), slot, person


def told(there: Receiver) -> list[tuple[str, dict[str, Any]]]:
    bodies = [json.loads(one.body) for one in there.told]
    return [(body["event"], body["data"]) for body in bodies]


def due_now() -> None:
    WebhookDelivery.objects.filter(state=State.WAITING).update(due_at=Now())
