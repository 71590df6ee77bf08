from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("annotate", "0011_rankings_by_time")]

    operations = [
        migrations.AddIndex(
            model_name="rankingtask",
            index=models.Index(
                name="task_by_priority",
                fields=["project", "priority", "id"],
                condition=~models.Q(priority=2),
            ),
        ),
    ]
