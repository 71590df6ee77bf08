"""Stages, deletion and the record of what was done with a model.

The rules of the triggers are broken by raw SQL in tests/training/django/test_registry_rules.py.
"""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

STAGES = [("new", "New"), ("candidate", "Candidate"), ("production", "Production"), ("archived", "Archived")]

APPEND_ONLY = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON training_modelevent
    FOR EACH ROW EXECUTE FUNCTION plackett_refuse();
"""
DROP_APPEND_ONLY = "DROP TRIGGER append_only ON training_modelevent;"

KEPT = """
-- A run begins from models that are kept. The model's row is locked, so that a run cannot slip in while a deletion is on
-- its way: whichever comes second finds the other.
CREATE FUNCTION plackett_run_of_kept_model() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    key text := TG_ARGV[0];
    wanted bigint := (to_jsonb(NEW) ->> key)::bigint;
BEGIN
    IF wanted IS NOT NULL AND (TG_OP = 'INSERT' OR to_jsonb(OLD) -> key IS DISTINCT FROM to_jsonb(NEW) -> key) THEN
        PERFORM 1 FROM training_modelversion WHERE id = wanted AND deleted_at IS NULL FOR SHARE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'model % was deleted: no run begins from it', wanted USING ERRCODE = 'restrict_violation';
        END IF;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER run_of_kept_model BEFORE INSERT OR UPDATE OF base_version_id ON training_run
    FOR EACH ROW EXECUTE FUNCTION plackett_run_of_kept_model('base_version_id');
CREATE TRIGGER input_of_kept_model BEFORE INSERT OR UPDATE OF version_id ON training_runinput
    FOR EACH ROW EXECUTE FUNCTION plackett_run_of_kept_model('version_id');
"""
DROP_KEPT = """
DROP TRIGGER run_of_kept_model ON training_run;
DROP TRIGGER input_of_kept_model ON training_runinput;
DROP FUNCTION plackett_run_of_kept_model();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("training", "0004_workers"),
        ("annotate", "0002_rules_across_tables"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="modelversion",
            name="files_removed_at",
            field=models.DateTimeField(
                blank=True, help_text="When the files of a deleted model were found to be gone.", null=True
            ),
        ),
        migrations.AlterField(
            model_name="modelversion",
            name="deleted_at",
            field=models.DateTimeField(
                blank=True, help_text="Its files are gone, or about to go; the lineage stays.", null=True
            ),
        ),
        migrations.AddConstraint(
            model_name="modelversion",
            constraint=models.UniqueConstraint(
                condition=models.Q(("stage", "production")), fields=("project", "kind"), name="one_production_model"
            ),
        ),
        migrations.AddConstraint(
            model_name="modelversion",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("stage", "production"), _negated=True), ("deleted_at__isnull", True), _connector="OR"
                ),
                name="model_in_production_is_kept",
            ),
        ),
        migrations.AddConstraint(
            model_name="modelversion",
            constraint=models.CheckConstraint(
                condition=models.Q(("files_removed_at__isnull", True), ("deleted_at__isnull", False), _connector="OR"),
                name="model_files_go_with_it",
            ),
        ),
        migrations.CreateModel(
            name="ModelEvent",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "what",
                    models.CharField(
                        choices=[
                            ("stage", "Stage"),
                            ("deleted", "Deleted"),
                            ("files_removed", "Files removed"),
                            ("files_kept", "Files could not be removed"),
                            ("pushed", "Pushed to a hub"),
                        ],
                        max_length=15,
                    ),
                ),
                ("from_stage", models.CharField(blank=True, choices=STAGES, max_length=10)),
                ("to_stage", models.CharField(blank=True, choices=STAGES, max_length=10)),
                (
                    "reason",
                    models.TextField(blank=True, help_text="Why, or where to, in a person's or the system's words."),
                ),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "actor",
                    models.ForeignKey(
                        blank=True,
                        help_text="Null: the server, or whoever works on it.",
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "model",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="events", to="training.modelversion"
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("from_stage__in", ["new", "candidate", "production", "archived"]),
                                ("to_stage__in", ["new", "candidate", "production", "archived"]),
                                ("what", "stage"),
                                models.Q(("from_stage", models.F("to_stage")), _negated=True),
                            ),
                            models.Q(
                                ("from_stage", ""),
                                ("to_stage", ""),
                                ("what__in", ["deleted", "files_removed", "files_kept", "pushed"]),
                            ),
                            _connector="OR",
                        ),
                        name="model_event_known",
                    )
                ],
            },
        ),
        migrations.RunSQL(APPEND_ONLY, DROP_APPEND_ONLY),
        migrations.RunSQL(KEPT, DROP_KEPT),
    ]
