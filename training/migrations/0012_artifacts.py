"""What of runs is in a bucket, and what stays of the checkpoints of runs that are over."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("annotate", "0005_indexes_for_managers"), ("training", "0011_watching")]
    operations = [
        migrations.CreateModel(
            name="Retention",
            fields=[
                (
                    "project",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="retention",
                        serialize=False,
                        to="annotate.project",
                    ),
                ),
                (
                    "kept",
                    models.PositiveSmallIntegerField(
                        blank=True,
                        help_text="Checkpoints of a run that succeeded. Empty: as PLACKETT_CHECKPOINTS_KEPT says.",
                        null=True,
                    ),
                ),
                (
                    "days",
                    models.PositiveSmallIntegerField(
                        blank=True,
                        help_text="After which these go, too. Empty: as PLACKETT_CHECKPOINT_DAYS says.",
                        null=True,
                    ),
                ),
                (
                    "resume_days",
                    models.PositiveSmallIntegerField(
                        blank=True,
                        help_text="For which a failed or cancelled run can go on. Empty: as PLACKETT_RESUME_DAYS says.",
                        null=True,
                    ),
                ),
            ],
            options={"verbose_name_plural": "retention", "ordering": ["project"]},
        ),
        migrations.AddField(
            model_name="run",
            name="checkpoints_removed_at",
            field=models.DateTimeField(
                blank=True, help_text="When the rules of retention had nothing more to remove.", null=True
            ),
        ),
        migrations.AddField(
            model_name="run",
            name="keeps_checkpoints",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="Somebody wants them kept, whatever the rules of retention say.",
            ),
        ),
        migrations.AddField(
            model_name="run",
            name="stored",
            field=models.JSONField(
                blank=True,
                help_text="What of it is in the bucket: files of its results, steps and bytes of its checkpoints. Null: nothing, as where artifacts are a folder.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="runattempt",
            name="bundle",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="The picture of the output folder that it went on from; of a bucket alone.",
                max_length=60,
            ),
        ),
    ]
