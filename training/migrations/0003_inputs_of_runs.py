"""Models besides the base that a run reads."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("training", "0002_rules_of_runs"),
    ]

    operations = [
        migrations.CreateModel(
            name="RunInput",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "role",
                    models.CharField(choices=[("reward_model", "Reward model"), ("judge", "Judge")], max_length=20),
                ),
                (
                    "name",
                    models.CharField(
                        help_text="As it was named: registry:ID, run:ID, folder or hub id.", max_length=300
                    ),
                ),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="inputs", to="training.run"
                    ),
                ),
                (
                    "version",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="runs_that_read_it",
                        to="training.modelversion",
                    ),
                ),
            ],
            options={
                "ordering": ["run", "role"],
                "constraints": [
                    models.UniqueConstraint(fields=("run", "role"), name="one_input_per_role"),
                    models.CheckConstraint(
                        condition=models.Q(("role__in", ["reward_model", "judge"])), name="input_role_known"
                    ),
                ],
            },
        ),
    ]
