"""Two at once: promotions follow one another, and no run slips in under a deletion."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import IntegrityError, connection, transaction

from annotate.models import Snapshot
from tests.training.django.helpers import RunCast, queue_run
from tests.training.django.test_registry_rules import make_model
from training.models import ModelVersion, Run, RunInput
from training.services.registry import delete_model, promote_model

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
