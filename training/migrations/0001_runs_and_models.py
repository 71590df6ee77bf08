"""Runs, attempts, metrics and the registry of models, with what a column or a row can say of its own rules."""

import django.core.validators
import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("annotate", "0003_first_epoch"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="ModelVersion",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=120)),
                ("kind", models.CharField(choices=[("policy", "Policy"), ("reward", "reward model")], max_length=10)),
                (
                    "stage",
                    models.CharField(
                        choices=[
                            ("new", "New"),
                            ("candidate", "Candidate"),
                            ("production", "Production"),
                            ("archived", "Archived"),
                        ],
                        default="new",
                        max_length=10,
                    ),
                ),
                ("folder", models.CharField(help_text="Under the folder of runs.", max_length=300, unique=True)),
                ("size_bytes", models.BigIntegerField()),
                (
                    "report",
                    models.JSONField(
                        default=dict, help_text="report.json of its run: what it scored on held-out data."
                    ),
                ),
                (
                    "shared",
                    models.BooleanField(
                        default=False, help_text="Engineers of other projects may read and train from it."
                    ),
                ),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "deleted_at",
                    models.DateTimeField(blank=True, help_text="Its files are gone; the lineage stays.", null=True),
                ),
                (
                    "parent",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="children",
                        to="training.modelversion",
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="models", to="annotate.project"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("id", "project"), name="model_of_project"),
                    models.CheckConstraint(
                        condition=models.Q(("kind__in", ["policy", "reward"])), name="model_kind_known"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("stage__in", ["new", "candidate", "production", "archived"])),
                        name="model_stage_known",
                    ),
                    models.CheckConstraint(condition=models.Q(("size_bytes__gte", 0)), name="model_size_not_negative"),
                    models.CheckConstraint(
                        condition=models.Q(("parent", models.F("id")), _negated=True), name="model_is_not_its_parent"
                    ),
                ],
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="Run",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=120)),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("sft", "SFT"),
                            ("reward", "Reward model"),
                            ("ppo", "PPO"),
                            ("dpo", "DPO"),
                            ("evaluate", "Evaluation"),
                            ("sample", "Sampling"),
                        ],
                        max_length=10,
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("waiting", "Waiting"),
                            ("queued", "Queued"),
                            ("starting", "Starting"),
                            ("running", "Running"),
                            ("stopping", "Stopping"),
                            ("succeeded", "Succeeded"),
                            ("failed", "Failed"),
                            ("cancelled", "Cancelled"),
                        ],
                        default="queued",
                        max_length=10,
                    ),
                ),
                ("suspect", models.BooleanField(default=False, help_text="Its numbers should not be trusted unseen.")),
                (
                    "base_model",
                    models.CharField(
                        help_text="As it was named: built in, registry:ID, folder or hub id.", max_length=300
                    ),
                ),
                (
                    "config",
                    models.JSONField(default=dict, help_text="Every setting of the recipe that decides the result."),
                ),
                (
                    "queue",
                    models.CharField(
                        default="gpu",
                        help_text="Kind of worker.",
                        max_length=30,
                        validators=[django.core.validators.RegexValidator("\\A[a-z][a-z0-9._-]*\\Z")],
                    ),
                ),
                (
                    "attempt",
                    models.PositiveIntegerField(
                        default=0, help_text="Counts claims; every write names the one it belongs to."
                    ),
                ),
                (
                    "times_lost",
                    models.PositiveSmallIntegerField(
                        default=0, help_text="Attempts that ended without a word since it was queued by a person."
                    ),
                ),
                ("worker", models.CharField(blank=True, max_length=200)),
                ("lease_expires_at", models.DateTimeField(blank=True, null=True)),
                ("heartbeat_at", models.DateTimeField(blank=True, null=True)),
                ("cancel_requested_at", models.DateTimeField(blank=True, null=True)),
                ("step", models.PositiveIntegerField(default=0)),
                ("total_steps", models.PositiveIntegerField(blank=True, null=True)),
                ("reason", models.TextField(blank=True, help_text="Why it failed or was put back, for people.")),
                ("log_tail", models.TextField(blank=True)),
                ("exit", models.JSONField(blank=True, help_text="exit.json of the last attempt.", null=True)),
                ("report", models.JSONField(blank=True, help_text="report.json of the finished run.", null=True)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("queued_at", models.DateTimeField(blank=True, null=True)),
                ("started_at", models.DateTimeField(blank=True, help_text="When the first attempt began.", null=True)),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                (
                    "base_version",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="runs_from_it",
                        to="training.modelversion",
                    ),
                ),
                (
                    "parent",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="children",
                        to="training.run",
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="runs", to="annotate.project"
                    ),
                ),
                (
                    "snapshot",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="runs",
                        to="annotate.snapshot",
                    ),
                ),
                (
                    "started_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("state", "queued")), fields=["queue", "queued_at", "id"], name="run_queue"
                    ),
                    models.Index(
                        condition=models.Q(("state__in", ["starting", "running", "stopping"])),
                        fields=["lease_expires_at"],
                        name="run_lease",
                    ),
                    models.Index(fields=["project", "-id"], name="run_by_project"),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("id", "project"), name="run_of_project"),
                    models.CheckConstraint(
                        condition=models.Q(("kind__in", ["sft", "reward", "ppo", "dpo", "evaluate", "sample"])),
                        name="run_kind_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "state__in",
                                [
                                    "waiting",
                                    "queued",
                                    "starting",
                                    "running",
                                    "stopping",
                                    "succeeded",
                                    "failed",
                                    "cancelled",
                                ],
                            )
                        ),
                        name="run_state_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("kind", "sample"), ("snapshot__isnull", False), _connector="OR"),
                        name="run_trains_from_a_snapshot",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("state", "waiting"), _negated=True), ("parent__isnull", False), _connector="OR"
                        ),
                        name="run_waits_for_a_parent",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("state", "queued"), _negated=True), ("queued_at__isnull", False), _connector="OR"
                        ),
                        name="run_queued_at_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("attempt__gte", 1),
                                ("heartbeat_at__isnull", False),
                                ("lease_expires_at__isnull", False),
                                ("started_at__isnull", False),
                                ("state__in", ["starting", "running", "stopping"]),
                                models.Q(("worker", ""), _negated=True),
                            ),
                            models.Q(
                                ("lease_expires_at__isnull", True),
                                ("state__in", ["waiting", "queued", "succeeded", "failed", "cancelled"]),
                            ),
                            _connector="OR",
                        ),
                        name="run_lease_while_active",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("state", "stopping"), _negated=True),
                            ("cancel_requested_at__isnull", False),
                            _connector="OR",
                        ),
                        name="run_stops_when_asked",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("finished_at__isnull", False), ("state__in", ["succeeded", "failed", "cancelled"])
                            ),
                            models.Q(
                                ("finished_at__isnull", True),
                                ("state__in", ["waiting", "queued", "starting", "running", "stopping"]),
                            ),
                            _connector="OR",
                        ),
                        name="run_finished_at_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("state", "failed"), _negated=True),
                            models.Q(("reason", ""), _negated=True),
                            _connector="OR",
                        ),
                        name="run_failure_has_a_reason",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("total_steps__isnull", True), ("total_steps__gte", 1), _connector="OR"),
                        name="run_total_steps_from_1",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("parent", models.F("id")), _negated=True), name="run_is_not_its_parent"
                    ),
                ],
                "ordering": ["-id"],
            },
        ),
        migrations.AddField(
            model_name="modelversion",
            name="run",
            field=models.OneToOneField(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="model",
                to="training.run",
            ),
        ),
        migrations.CreateModel(
            name="RunAttempt",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.PositiveIntegerField()),
                ("worker", models.CharField(max_length=200)),
                ("host", models.CharField(max_length=200)),
                (
                    "process_id",
                    models.PositiveIntegerField(blank=True, help_text="Of the trainer, on that host.", null=True),
                ),
                (
                    "process_started_at",
                    models.FloatField(
                        blank=True,
                        help_text="Seconds since 1970 by the host's clock: tells the process from a later one.",
                        null=True,
                    ),
                ),
                (
                    "from_step",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="Steps already done when the trainer began; null until it says.",
                        null=True,
                    ),
                ),
                ("started_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
                (
                    "outcome",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("succeeded", "Succeeded"),
                            ("failed", "Failed"),
                            ("cancelled", "Cancelled"),
                            ("released", "Released"),
                            ("lost", "Lost"),
                        ],
                        max_length=10,
                    ),
                ),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="attempts", to="training.run"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("run", "number"), name="one_attempt_per_number"),
                    models.UniqueConstraint(
                        condition=models.Q(("outcome", "")), fields=("run",), name="one_open_attempt_per_run"
                    ),
                    models.CheckConstraint(condition=models.Q(("number__gte", 1)), name="attempt_number_from_1"),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("ended_at__isnull", True), ("outcome", "")),
                            models.Q(
                                ("ended_at__isnull", False),
                                ("outcome__in", ["succeeded", "failed", "cancelled", "released", "lost"]),
                            ),
                            _connector="OR",
                        ),
                        name="attempt_outcome_known",
                    ),
                ],
                "ordering": ["run", "number"],
            },
        ),
        migrations.CreateModel(
            name="RunMetric",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("step", models.PositiveIntegerField()),
                ("attempt", models.PositiveIntegerField()),
                ("values", models.JSONField(help_text="Name → number, null where it was not finite.")),
                ("recorded_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="metrics", to="training.run"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("run", "step"), name="one_metric_row_per_step"),
                    models.CheckConstraint(condition=models.Q(("step__gte", 1)), name="metric_step_from_1"),
                ],
                "ordering": ["run", "step"],
            },
        ),
    ]
