"""However a run ends, the project's webhooks are told once, with the run; a try's end is told to nobody."""

import json
from typing import Any

import pytest

from annotate.models import Project, Webhook, WebhookDelivery
from tests.training.django.helpers import claim, expire, make_snapshot, queue_run, queue_try
from training.models import ModelVersion, Run
from training.services.claims import MAX_TIMES_LOST, end_cancelled, fail, mark_running, release_expired, succeed
from training.services.runs import cancel_run, resume_run

pytestmark = pytest.mark.django_db


@pytest.fixture
def listening(project: Project) -> Project:
    Webhook.objects.create(project=project, url="https://93.184.215.14/", events=["run.finished"])
    return project


def told() -> list[tuple[Any, ...]]:
    bodies = [json.loads(body)["data"] for body in WebhookDelivery.objects.values_list("body", flat=True)]
    return [(one["run"], one["state"], one["reason"], one["model"]) for one in bodies]


def test_every_end_is_told_once_with_the_model_that_was_made(listening: Project) -> None:
    snapshot = make_snapshot(listening)
    good, bad, stopped, waiting = (queue_run(snapshot) for _ in range(4))
    held = claim()
    mark_running(held, process_id=1, process_started_at=1.0)
    model = ModelVersion(project=listening, name="m", kind="reward", run=good, folder="runs/1/model", size_bytes=1)
    succeed(held, model=model, step=1)
    fail(claim(), reason="It broke.")
    held = claim()
    cancel_run(stopped)
    end_cancelled(held)
    cancel_run(waiting)
    assert told() == [
        (good.pk, "succeeded", "", model.pk),
        (bad.pk, "failed", "It broke.", None),
        (stopped.pk, "cancelled", "", None),
        (waiting.pk, "cancelled", "", None),
    ]
    resume_run(bad)
    claim()
    assert len(told()) == 4, "going on is no end"


def test_a_lost_worker_is_no_end_until_it_is_given_up_and_children_are_told_too(listening: Project) -> None:
    run = queue_run(make_snapshot(listening))
    child = queue_run(run.snapshot, state=Run.State.WAITING, parent=run, base_model=f"run:{run.pk}", queued_at=None)
    for _ in range(MAX_TIMES_LOST - 1):
        claim()
        expire(run)
        release_expired()
    assert told() == []
    cancel_run(run)
    assert [(one[0], one[1]) for one in told()] == [(child.pk, "cancelled"), (run.pk, "cancelled")]


def test_the_end_of_a_try_is_told_to_nobody(listening: Project) -> None:
    cancel_run(queue_try(listening).run)
    assert told() == []
