"""Where a run's page finds what became of its trackers, and members that leave in good order."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("training", "0012_artifacts")]
    operations = [
        migrations.AddField(
            model_name="run",
            name="trackers",
            field=models.JSONField(
                blank=True,
                db_default=models.Value({}, models.JSONField()),
                default=dict,
                help_text="Tracker → url where it shows the run, fault, known_as.",
            ),
        ),
        migrations.RemoveConstraint(model_name="runmember", name="member_ends_with_an_outcome"),
        migrations.AlterField(
            model_name="runmember",
            name="outcome",
            field=models.CharField(
                blank=True, choices=[("done", "Done"), ("left", "Left"), ("lost", "Lost")], max_length=10
            ),
        ),
        migrations.AddConstraint(
            model_name="runmember",
            constraint=models.CheckConstraint(
                condition=models.Q(("ended_at__isnull", True), ("outcome", ""))
                | models.Q(("ended_at__isnull", False), ("outcome__in", ["done", "left", "lost"])),
                name="member_ends_with_an_outcome",
            ),
        ),
    ]
