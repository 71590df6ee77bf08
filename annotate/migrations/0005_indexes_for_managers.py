from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("annotate", "0004_people_links_leaks"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddIndex(
            model_name="ranking",
            index=models.Index(
                name="ranking_by_annotator_and_time",
                fields=["project", "annotator", "-submitted_at"],
                condition=models.Q(revision=1),
            ),
        ),
        migrations.AddIndex(
            model_name="ranking",
            index=models.Index(
                name="ranking_made_here_by_time",
                fields=["project", "submitted_at"],
                condition=models.Q(revision=1, source__in=["page", "api"]),
            ),
        ),
        migrations.AddIndex(
            model_name="rankingtask",
            index=models.Index(name="task_held", fields=["project", "id"], condition=models.Q(state="held")),
        ),
        migrations.AddIndex(
            model_name="rankingtask",
            index=models.Index(name="task_closed", fields=["project", "id"], condition=models.Q(state="closed")),
        ),
        migrations.AddIndex(
            model_name="taskflag",
            index=models.Index(name="flag_unsettled", fields=["task"], condition=models.Q(settled_at__isnull=True)),
        ),
    ]
