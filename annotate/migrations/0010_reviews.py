"""Reviews of rankings, and the log of what was withdrawn.

The rules of the triggers are broken by raw SQL in tests/annotate/test_reviews.py and tests/annotate/test_withdrawals.py.
"""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

RULES = """
-- A review is of the last revision of somebody else's ranking that is not withdrawn. The ranking is locked, so that a
-- withdrawal or a revision at the same moment either is seen here or sees the review.
CREATE FUNCTION plackett_review_of_anothers_ranking() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    author bigint; gone timestamptz;
BEGIN
    SELECT annotator_id, withdrawn_at INTO author, gone FROM annotate_ranking WHERE id = NEW.ranking_id FOR SHARE;
    IF author = NEW.reviewer_id THEN
        RAISE EXCEPTION 'nobody reviews a ranking of their own' USING ERRCODE = 'check_violation';
    END IF;
    IF gone IS NOT NULL THEN
        RAISE EXCEPTION 'a withdrawn ranking is not reviewed' USING ERRCODE = 'check_violation';
    END IF;
    IF EXISTS (SELECT 1 FROM annotate_ranking WHERE supersedes_id = NEW.ranking_id) THEN
        RAISE EXCEPTION 'only the last revision is reviewed' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER review_of_anothers_ranking BEFORE INSERT ON annotate_review
    FOR EACH ROW EXECUTE FUNCTION plackett_review_of_anothers_ranking();
CREATE TRIGGER only_withdrawal BEFORE UPDATE ON annotate_review FOR EACH ROW
    EXECUTE FUNCTION plackett_only_withdrawal('note');
CREATE TRIGGER never_deleted BEFORE DELETE ON annotate_review FOR EACH ROW EXECUTE FUNCTION plackett_refuse();
CREATE TRIGGER never_deleted BEFORE DELETE ON annotate_withdrawal FOR EACH ROW EXECUTE FUNCTION plackett_refuse();
"""
DROP_RULES = """
DROP TRIGGER review_of_anothers_ranking ON annotate_review;
DROP TRIGGER only_withdrawal ON annotate_review;
DROP TRIGGER never_deleted ON annotate_review;
DROP TRIGGER never_deleted ON annotate_withdrawal;
DROP FUNCTION plackett_review_of_anothers_ranking();
"""

# The name that an import gave a split group may be a text. It goes with the last of the group's prompts; the hash stays.
GROUPS = """
CREATE FUNCTION plackett_split_group_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.key <> '' OR to_jsonb(OLD) - 'key' <> to_jsonb(NEW) - 'key' THEN
        RAISE EXCEPTION 'a split group stays as it is: only its name may be blanked' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
DROP TRIGGER never_changed ON annotate_splitgroup;
CREATE TRIGGER stays BEFORE UPDATE ON annotate_splitgroup FOR EACH ROW EXECUTE FUNCTION plackett_split_group_stays();
"""
GROUPS_OF_0002 = """
DROP TRIGGER stays ON annotate_splitgroup;
DROP FUNCTION plackett_split_group_stays();
CREATE TRIGGER never_changed BEFORE UPDATE ON annotate_splitgroup FOR EACH ROW EXECUTE FUNCTION plackett_refuse();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("annotate", "0009_counted_feed"),
    ]

    operations = [
        migrations.CreateModel(
            name="Review",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "verdict",
                    models.CharField(choices=[("accepted", "Accepted"), ("returned", "Returned")], max_length=10),
                ),
                ("note", models.TextField(blank=True, help_text="For the annotator.")),
                ("change", models.BigIntegerField(help_text="Its number in the project's order of changes.")),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("withdrawn_at", models.DateTimeField(blank=True, help_text="Since then without its note.", null=True)),
                (
                    "ranking",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="reviews", to="annotate.ranking"
                    ),
                ),
                (
                    "reviewer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="reviews", to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("ranking", "change"), name="one_review_per_ranking_and_change"),
                    models.CheckConstraint(
                        condition=models.Q(("verdict__in", ["accepted", "returned"])), name="review_verdict_known"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Withdrawal",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("annotator", "All that a person wrote"),
                            ("ranking", "Ranking"),
                            ("prompt", "Prompt"),
                            ("response", "Response"),
                            ("note", "Note"),
                        ],
                        max_length=10,
                    ),
                ),
                ("counts", models.JSONField(default=dict, help_text="What was removed: kind of thing → how many.")),
                ("started_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                (
                    "annotator",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="withdrawals", to="annotate.project"
                    ),
                ),
                (
                    "prompt",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="annotate.prompt",
                    ),
                ),
                (
                    "ranking",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="annotate.ranking",
                    ),
                ),
                (
                    "response",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="annotate.response",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("finished_at__isnull", True), ("kind", "annotator")),
                        fields=("project", "annotator"),
                        name="one_open_withdrawal_per_annotator",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("annotator__isnull", False), ("kind__in", ["annotator", "note"])),
                            models.Q(("kind", "ranking"), ("ranking__isnull", False)),
                            models.Q(("kind", "prompt"), ("prompt__isnull", False)),
                            models.Q(("kind", "response"), ("response__isnull", False)),
                            _connector="OR",
                        ),
                        name="withdrawal_names_its_object",
                    ),
                ],
            },
        ),
        migrations.RunSQL(RULES, DROP_RULES),
        migrations.RunSQL(GROUPS, GROUPS_OF_0002),
    ]
