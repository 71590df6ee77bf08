"""What a withdrawal reaches beyond the rankings: the models that were trained from a snapshot with some of them."""

import pytest

from annotate.selectors.withdrawals import reach_of_annotator
from annotate.services.queue import next_leases
from annotate.services.snapshots import freeze_snapshot
from annotate.services.withdrawn_people import withdraw_annotator
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import submit
from tests.training.django.helpers import queue_run
from tests.training.django.test_registry_rules import make_model
from tests.training.django.test_run_api import client_of
from training.selectors import withdrawn_among

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("runs_root")]


def test_models_are_named_before_and_marked_after() -> None:
    project = make_project()
    bob, ann = make_user("bob", project=project), make_user("ann", project=project)
    eve = make_user("eve", project=project, role="manager", engineer=True)
    make_task(project)
    submit(next_leases(project=project, annotator=ann)[0], ann)
    without = freeze_snapshot(project=project, name="without")
    make_task(project)
    submit(next_leases(project=project, annotator=bob)[0], bob)
    snapshot = freeze_snapshot(project=project, name="with")
    clean = make_model(without, run=queue_run(without))
    first = make_model(snapshot, run=queue_run(snapshot))
    second = make_model(without, parent=first)
    shared = make_model(without, parent=first, project=make_project())
    reach = reach_of_annotator(project, bob)
    assert [one.name for one in reach.snapshots] == ["with"]
    assert reach.models == [f"{first.name} ({first.pk})", f"{second.name} ({second.pk})", "one of another project"]
    withdraw_annotator(project=project, annotator=bob, by=eve)
    assert withdrawn_among([clean, first, second, shared]) == {first.pk, second.pk, shared.pk}
    body = {"project": project.slug, "kind": "reward", "base_model": "tiny", "snapshot": snapshot.pk}
    refused = client_of(eve).post("/api/v1/runs/", body)
    assert refused.status_code == 422 and "withdrawn" in refused.json()["error"]["fields"]["snapshot"]
    listed = client_of(eve).get("/api/v1/models/").json()["results"]
    assert {one["id"]: one["withdrawn"] for one in listed} == {clean.pk: False, first.pk: True, second.pk: True}
