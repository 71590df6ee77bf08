import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("annotate", "0008_webhooks_and_machines"),
    ]

    operations = [
        migrations.CreateModel(
            name="FeedBlock",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.BigIntegerField()),
                ("as_of", models.BigIntegerField(help_text="The last change when it was counted.")),
                ("shapes", models.JSONField(help_text="Rows of selectors.line_counts.Shape.")),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="feed_blocks", to="annotate.project"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("project", "number"), name="one_feed_block_per_number")
                ],
            },
        ),
    ]
