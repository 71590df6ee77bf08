"""Sums over stretches of a run's measurements, which its curves are drawn from, and an index for those that are rare."""

import django.db.models.deletion
from django.db import migrations, models

FILL = """
INSERT INTO training_metricstretch (run_id, number, "values")
SELECT run_id, number, jsonb_object_agg(name, jsonb_build_array(count, mean, low_step, low, high_step, high))
FROM (
    SELECT run_id, (step - 1) / 64 AS number, name, count(*) AS count, avg(value) AS mean,
           (array_agg(step ORDER BY value, step))[1] AS low_step, min(value) AS low,
           (array_agg(step ORDER BY value DESC, step))[1] AS high_step, max(value) AS high
    FROM training_runmetric metric
    JOIN (SELECT run_id AS id, max(step) AS last FROM training_runmetric GROUP BY run_id) run ON run.id = metric.run_id,
         LATERAL (SELECT key AS name, (one.value #>> '{}')::float8 AS value FROM jsonb_each(metric."values") AS one
                  WHERE jsonb_typeof(one.value) = 'number') AS measured
    WHERE step <= last / 64 * 64
    GROUP BY 1, 2, 3
) AS figures
GROUP BY run_id, number;
"""


class Migration(migrations.Migration):
    dependencies = [("training", "0006_inputs_of_evaluation_and_sampling")]

    operations = [
        migrations.AddIndex(
            model_name="runmetric",
            index=models.Index(
                condition=models.Q(
                    ("values__has_any_keys", ["validation/accuracy", "validation/loss", "validation/score"])
                ),
                fields=["run", "-step"],
                name="metric_held_out",
            ),
        ),
        migrations.CreateModel(
            name="MetricStretch",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.PositiveIntegerField()),
                (
                    "values",
                    models.JSONField(
                        help_text="Name → count, mean, step of the lowest, lowest, step of the highest, highest."
                    ),
                ),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="stretches", to="training.run"
                    ),
                ),
            ],
            options={"ordering": ["run", "number"]},
        ),
        migrations.AddConstraint(
            model_name="metricstretch",
            constraint=models.UniqueConstraint(fields=("run", "number"), name="one_stretch_per_number"),
        ),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
    ]
