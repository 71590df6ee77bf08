from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("annotate", "0013_tasks_by_priority")]

    operations = [
        migrations.AddField(
            model_name="withdrawal",
            name="reason",
            field=models.CharField(
                max_length=200,
                default="",
                db_default="",
                blank=True,
                help_text="Why, in the words of whoever withdrew it.",
            ),
        ),
        # Lists of a project's prompts by when they came, and those since or before an instant.
        migrations.AddIndex(
            model_name="prompt",
            index=models.Index(fields=["project", "created_at", "id"], name="prompt_by_time"),
        ),
    ]
