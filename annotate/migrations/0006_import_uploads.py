import uuid

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("annotate", "0005_indexes_for_managers"),
    ]

    operations = [
        migrations.CreateModel(
            name="ImportUpload",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("format", models.CharField(max_length=30)),
                ("name", models.CharField(blank=True, help_text="What the file was called.", max_length=300)),
                ("mapping", models.JSONField(default=dict, help_text="Column → field.")),
                ("columns", models.JSONField(default=list, help_text="What can be mapped.")),
                ("stored", models.CharField(help_text="The file's name in the artifact store.", max_length=300)),
                ("size_bytes", models.BigIntegerField()),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "created_by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="import_uploads",
                        to="annotate.project",
                    ),
                ),
            ],
        ),
    ]
