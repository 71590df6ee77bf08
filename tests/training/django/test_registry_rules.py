"""Each rule of the database about the registry, broken by raw SQL, is refused."""

from typing import Any

import pytest

from annotate.models import Snapshot
from tests.annotate.factories import make_project
from tests.training.django.helpers import make_snapshot, queue_run
from tests.training.django.test_run_rules import refused, run_columns, sql
from training.models import ModelEvent, ModelVersion

pytestmark = pytest.mark.django_db


def make_model(snapshot: Snapshot, **fields: Any) -> ModelVersion:
    """A model without a run, in a folder that nobody made."""
    number = ModelVersion.objects.count()
    values = {"project": snapshot.project, "name": f"m{number}", "kind": "policy", "folder": f"m{number}"}
    return ModelVersion.objects.create(**({**values, "size_bytes": 1} | fields))


STAGE = "UPDATE training_modelversion SET stage = %s WHERE id = %s"
DELETE = "UPDATE training_modelversion SET deleted_at = now() WHERE id = %s"


def test_one_model_of_a_kind_is_in_production_in_a_project(snapshot: Snapshot) -> None:
    first, second = make_model(snapshot, stage="production"), make_model(snapshot)
    refused(STAGE, "production", second.pk, match="one_production_model")
    elsewhere = make_snapshot(make_project())
    for other in (make_model(snapshot, kind="reward"), make_model(elsewhere)):
        sql(STAGE, "production", other.pk)
    sql(STAGE, "archived", first.pk)
    sql(STAGE, "production", second.pk)


def test_what_is_in_production_is_not_deleted(snapshot: Snapshot) -> None:
    model = make_model(snapshot, stage="production")
    refused(DELETE, model.pk, match="model_in_production_is_kept")
    gone = "UPDATE training_modelversion SET files_removed_at = now() WHERE id = %s"
    refused(gone, model.pk, match="model_files_go_with_it")
    sql(STAGE, "archived", model.pk)
    sql(DELETE, model.pk)
    sql(gone, model.pk)
    refused(STAGE, "production", model.pk, match="model_in_production_is_kept")


def test_what_was_done_with_a_model_stays_on_record(snapshot: Snapshot) -> None:
    model = make_model(snapshot)
    event = ModelEvent.objects.create(model=model, what="stage", from_stage="new", to_stage="candidate")
    refused("UPDATE training_modelevent SET reason = 'other' WHERE id = %s", event.pk, match="append-only")
    refused("DELETE FROM training_modelevent WHERE id = %s", event.pk, match="append-only")


@pytest.mark.parametrize(
    ("what", "before", "after"),
    [("sung", "", ""), ("stage", "new", "new"), ("stage", "", "new"), ("stage", "new", "odd"), ("deleted", "new", "")],
)
def test_an_event_says_what_happened(snapshot: Snapshot, what: str, before: str, after: str) -> None:
    insert = (
        "INSERT INTO training_modelevent (model_id, what, from_stage, to_stage, reason) VALUES (%s, %s, %s, %s, '')"
    )
    model = make_model(snapshot)
    sql(insert, model.pk, "stage", "new", "candidate")
    refused(insert, model.pk, what, before, after, match="model_event_known")


def test_no_run_begins_from_a_deleted_model(snapshot: Snapshot) -> None:
    kept, deleted = make_model(snapshot), make_model(snapshot)
    sql(DELETE, deleted.pk)
    columns = {"project_id": snapshot.project_id, "snapshot_id": snapshot.pk}
    sql(run_columns(**columns, base_version_id=kept.pk))
    refused(run_columns(**columns, base_version_id=deleted.pk), match="was deleted")
    run = queue_run(snapshot, base_version=kept)
    refused("UPDATE training_run SET base_version_id = %s WHERE id = %s", deleted.pk, run.pk, match="was deleted")
    insert = "INSERT INTO training_runinput (run_id, role, name, version_id) VALUES (%s, 'judge', 'x', %s)"
    refused(insert, run.pk, deleted.pk, match="was deleted")
    sql(insert, run.pk, kept.pk)
    refused("UPDATE training_runinput SET version_id = %s", deleted.pk, match="was deleted")
    sql(DELETE, kept.pk)
    sql("UPDATE training_run SET step = 1, base_model = base_model WHERE id = %s", run.pk)
