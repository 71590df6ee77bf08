from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("annotate", "0009_counted_feed"),
    ]

    operations = [
        # Lists of a project's rankings in the order of their times: an answer of milliseconds at any size.
        migrations.AddIndex(
            model_name="ranking",
            index=models.Index(fields=["project", "submitted_at", "id"], name="ranking_by_time"),
        ),
    ]
