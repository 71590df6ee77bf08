"""Two at once: promotions follow one another, and no run slips in under a deletion."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import IntegrityError, connection, transaction

from annotate.errors import Invalid
from annotate.models import Snapshot
from annotate.services.snapshots import withdraw_snapshot
from tests.training.django.helpers import RunCast, queue_run
from tests.training.django.test_registry_rules import make_model
from tests.training.django.test_run_api import finished
from training.models import ModelVersion, Run, RunInput
from training.selectors import hold_version
from training.services.registry import delete_model, promote_model
from training.services.runs import start_run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("runs_root")]


class Other(threading.Thread):
    """Somebody else, with a connection of their own; `error` is what came of it."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.act = act
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.act()
        except Exception as error:
            self.error = error
        finally:
            connection.close()


def test_two_promotions_at_once_leave_one_in_production(snapshot: Snapshot, people: RunCast) -> None:
    first, second = make_model(snapshot), make_model(snapshot)
    with transaction.atomic():
        promote_model(first, stage="production", actor=people.alice)
        other = Other(lambda: promote_model(second, stage="production", actor=people.alice))
        other.join(0.3)  # it waits for the commit; were it not to, it would meet the constraint
    other.join(20)
    assert other.error is None
    stages = dict(ModelVersion.objects.values_list("pk", "stage"))
    assert stages == {first.pk: "archived", second.pk: "production"}


@pytest.mark.parametrize("how", ["base", "input"])
def test_no_run_slips_in_under_a_deletion(snapshot: Snapshot, people: RunCast, runs_root: Path, how: str) -> None:
    model, run = make_model(snapshot), queue_run(snapshot)

    def begin() -> None:
        if how == "base":
            queue_run(snapshot, base_version=model)
        else:
            RunInput.objects.create(run=run, role="judge", name="x", version=model)

    with transaction.atomic():
        delete_model(model, actor=people.alice)
        other = Other(begin)
        other.join(0.3)
    other.join(20)
    assert isinstance(other.error, IntegrityError) and "was deleted" in str(other.error)
    assert Run.objects.count() == 1 and not RunInput.objects.exists()


def test_a_deletion_waits_for_a_run_that_is_being_started(snapshot: Snapshot, people: RunCast) -> None:
    model = make_model(snapshot)
    with transaction.atomic():
        run = queue_run(snapshot, base_version=model)
        other = Other(lambda: delete_model(model, actor=people.alice))
        other.join(0.3)
    other.join(20)
    assert other.error is not None and getattr(other.error, "extra", None) == {"runs": [run.pk]}
    assert ModelVersion.objects.get().deleted_at is None


@pytest.mark.parametrize("role", ["base_model", "reward_model", "run"])
def test_a_run_that_is_started_under_a_deletion_is_refused_in_words(
    snapshot: Snapshot, people: RunCast, runs_root: Path, role: str
) -> None:
    model = make_model(snapshot) if role == "base_model" else finished(snapshot)
    name = f"run:{model.run_id}" if role == "run" else f"registry:{model.pk}"
    named = {"base_model": name} if role == "base_model" else {"base_model": "tiny", "inputs": {"reward_model": name}}
    wanted = {"project": snapshot.project, "started_by": None, "kind": "sample", "snapshot": snapshot, "config": {}}
    before = Run.objects.count()
    with transaction.atomic():
        delete_model(model, actor=people.alice)
        other = Other(lambda: start_run(**wanted, **named))  # type: ignore[arg-type]
        other.join(0.3)
    other.join(20)
    assert isinstance(other.error, Invalid)
    assert list(other.error.fields) == [role if role == "base_model" else "reward_model"]
    assert Run.objects.count() == before


def test_a_run_that_is_started_under_a_withdrawal_is_refused_in_words(snapshot: Snapshot) -> None:
    def begin() -> None:
        start_run(
            project=snapshot.project, started_by=None, kind="sft", snapshot=snapshot, config={}, base_model="tiny"
        )

    with transaction.atomic():
        withdraw_snapshot(snapshot=snapshot)
        other = Other(begin)
        other.join(0.3)
    other.join(20)
    assert isinstance(other.error, Invalid) and "withdrawn" in other.error.fields["snapshot"]
    assert not Run.objects.exists()


def test_runs_that_begin_from_one_model_do_not_wait_for_one_another(snapshot: Snapshot) -> None:
    model = make_model(snapshot)
    with transaction.atomic():
        assert hold_version(model.pk)
        other = Other(lambda: hold_version(model.pk))
        other.join(20)
        assert not other.is_alive() and other.error is None
