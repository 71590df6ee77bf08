"""Tries: a conversation that models answer on the spot, without a snapshot."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("training", "0008_placement")]
    operations = [
        migrations.CreateModel(
            name="Try",
            fields=[
                (
                    "run",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="tried",
                        serialize=False,
                        to="training.run",
                    ),
                ),
                ("messages", models.JSONField(help_text="[{role, content}, …], as prompts have them.")),
                (
                    "split_group",
                    models.TextField(
                        blank=True,
                        null=True,
                        help_text="Of the project's prompt that it is; null: what follows from the messages.",
                    ),
                ),
                ("shows_thinking", models.BooleanField(default=False, help_text="On the page.")),
                (
                    "seen_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), help_text="When somebody last looked."
                    ),
                ),
                (
                    "result",
                    models.JSONField(
                        blank=True,
                        null=True,
                        help_text="responses: what responses.jsonl says of each; seconds: of each model.",
                    ),
                ),
            ],
            options={"ordering": ["-run"], "verbose_name_plural": "tries"},
        )
    ]
