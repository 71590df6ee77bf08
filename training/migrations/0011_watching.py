"""Samples and the use of machines while a run trains, and the run that another was cloned from.

The rules of the triggers are broken by raw SQL in tests/training/django/test_run_samples.py.
"""

import django.db.models.deletion
from django.db import migrations, models

RULES = """
ALTER TABLE training_runsample ADD CONSTRAINT sample_of_an_attempt
    FOREIGN KEY (run_id, attempt) REFERENCES training_runattempt (run_id, number) DEFERRABLE INITIALLY DEFERRED;

CREATE FUNCTION plackett_sample_of_current_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM training_run WHERE id IN (SELECT run_id FROM written) ORDER BY id FOR SHARE;
    IF EXISTS (
        SELECT 1 FROM written JOIN training_run run ON run.id = written.run_id
        WHERE run.attempt <> written.attempt OR run.state NOT IN ('starting', 'running', 'stopping')
    ) THEN
        RAISE EXCEPTION 'only the attempt that holds a run writes its samples' USING ERRCODE = 'restrict_violation';
    END IF;
    PERFORM 1 FROM annotate_snapshot WHERE id IN (
        SELECT run.snapshot_id FROM written JOIN training_run run ON run.id = written.run_id
    ) ORDER BY id FOR SHARE;
    IF EXISTS (
        SELECT 1 FROM written JOIN training_run run ON run.id = written.run_id
        JOIN annotate_snapshot snapshot ON snapshot.id = run.snapshot_id WHERE snapshot.state <> 'frozen'
    ) THEN
        RAISE EXCEPTION 'no texts are kept of a snapshot that was withdrawn' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER sample_of_current_attempt AFTER INSERT ON training_runsample REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION plackett_sample_of_current_attempt();
CREATE TRIGGER changed_sample_of_current_attempt AFTER UPDATE ON training_runsample REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION plackett_sample_of_current_attempt();

-- A withdrawal takes the texts that were made from the data with it, in its own transaction.
CREATE FUNCTION plackett_samples_go_with_the_snapshot() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM training_runsample sample USING training_run run
    WHERE run.id = sample.run_id AND run.snapshot_id = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER samples_go_with_the_snapshot AFTER UPDATE OF state ON annotate_snapshot
    FOR EACH ROW WHEN (NEW.state = 'withdrawn' AND OLD.state <> 'withdrawn')
    EXECUTE FUNCTION plackett_samples_go_with_the_snapshot();
"""
DROP_RULES = """
DROP TRIGGER samples_go_with_the_snapshot ON annotate_snapshot;
DROP TRIGGER sample_of_current_attempt ON training_runsample;
DROP TRIGGER changed_sample_of_current_attempt ON training_runsample;
DROP FUNCTION plackett_samples_go_with_the_snapshot();
DROP FUNCTION plackett_sample_of_current_attempt();
ALTER TABLE training_runsample DROP CONSTRAINT sample_of_an_attempt;
"""


class Migration(migrations.Migration):
    dependencies = [("training", "0010_tries"), ("annotate", "0001_record_of_judgement")]
    operations = [
        migrations.AddField(
            model_name="run",
            name="cloned_from",
            field=models.ForeignKey(
                blank=True,
                help_text="The run whose settings filled in the form that started it.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="clones",
                to="training.run",
            ),
        ),
        migrations.CreateModel(
            name="RunSample",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("attempt", models.PositiveIntegerField()),
                ("step", models.PositiveIntegerField(help_text="0: before training.")),
                (
                    "place",
                    models.PositiveSmallIntegerField(
                        help_text="Among the rows of its step; the same prompt at each step."
                    ),
                ),
                ("prompt", models.JSONField(help_text="[{role, content}, …], as prompts have them.")),
                (
                    "before",
                    models.TextField(
                        blank=True, help_text="Said before training; null: not told in this row.", null=True
                    ),
                ),
                ("before_score", models.FloatField(blank=True, null=True)),
                ("response", models.TextField(blank=True)),
                ("thinking", models.TextField(blank=True, null=True)),
                ("score", models.FloatField(blank=True, null=True)),
                ("scores", models.JSONField(default=dict, help_text="Of each reward source, by its name.")),
                (
                    "ended",
                    models.BooleanField(blank=True, help_text="By itself; otherwise it was cut off.", null=True),
                ),
                (
                    "shortened",
                    models.BooleanField(default=False, help_text="A text is longer in samples.jsonl."),
                ),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="samples", to="training.run"
                    ),
                ),
            ],
            options={"ordering": ["run", "-step", "place"]},
        ),
        migrations.AddConstraint(
            model_name="runsample",
            constraint=models.UniqueConstraint(fields=("run", "step", "place"), name="one_sample_per_place"),
        ),
        migrations.CreateModel(
            name="RunUse",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("worker", models.CharField(max_length=200)),
                ("number", models.PositiveIntegerField()),
                ("seconds", models.PositiveIntegerField(help_text="Of the span.")),
                ("readings", models.PositiveIntegerField(default=1)),
                ("memory_bytes", models.BigIntegerField()),
                ("memory_used_bytes", models.BigIntegerField()),
                ("gpus", models.JSONField(default=list, help_text="As Worker.gpus.")),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="use", to="training.run"
                    ),
                ),
            ],
            options={"ordering": ["run", "worker", "number"]},
        ),
        migrations.AddConstraint(
            model_name="runuse",
            constraint=models.UniqueConstraint(fields=("run", "worker", "number"), name="one_use_per_span"),
        ),
        migrations.RunSQL(RULES, DROP_RULES),
    ]
