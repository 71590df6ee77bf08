"""What workers say of themselves."""

import django.contrib.postgres.fields
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("training", "0003_inputs_of_runs"),
    ]

    operations = [
        migrations.CreateModel(
            name="Worker",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(help_text="As in Run.worker.", max_length=200, unique=True)),
                ("host", models.CharField(max_length=200)),
                ("process_id", models.PositiveIntegerField(help_text="On that host.")),
                (
                    "queues",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=100),
                        help_text="It takes runs from these.",
                        size=None,
                    ),
                ),
                ("version", models.CharField(blank=True, help_text="Of Plackett.", max_length=50)),
                ("processors", models.PositiveIntegerField(help_text="That it may use.")),
                ("memory_bytes", models.BigIntegerField()),
                ("memory_used_bytes", models.BigIntegerField()),
                (
                    "gpus",
                    models.JSONField(
                        default=list, help_text="Of each: name, memory_bytes, memory_used_bytes, busy (0 to 1)."
                    ),
                ),
                ("started_at", models.DateTimeField()),
                ("seen_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("stopped_at", models.DateTimeField(blank=True, help_text="It said goodbye.", null=True)),
            ],
            options={
                "ordering": ["name"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("memory_bytes__gte", 0), ("memory_used_bytes__gte", 0)),
                        name="worker_memory_not_negative",
                    ),
                ],
            },
        ),
    ]
