"""Where a run is carried out: processes, machines, and the workers that train one run together.

The rules of the triggers are broken by raw SQL in tests/training/django/test_run_members.py.
"""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

ADD_KEY = """
ALTER TABLE training_runmember ADD CONSTRAINT member_of_an_attempt FOREIGN KEY (run_id, attempt)
    REFERENCES training_runattempt (run_id, number) DEFERRABLE INITIALLY DEFERRED;
"""
DROP_KEY = "ALTER TABLE training_runmember DROP CONSTRAINT member_of_an_attempt;"

RULES = """
CREATE FUNCTION plackett_run_keeps_its_size() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.processes, OLD.nodes) <> (NEW.processes, NEW.nodes) THEN
        RAISE EXCEPTION 'how many processes train a run is fixed' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER run_keeps_its_size BEFORE UPDATE OF processes, nodes ON training_run
    FOR EACH ROW EXECUTE FUNCTION plackett_run_keeps_its_size();

-- Members train in the attempt that holds the run. Its row is locked against a claim that would begin another.
CREATE FUNCTION plackett_member_of_current_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND (OLD.ended_at IS NOT NULL OR (OLD.run_id, OLD.attempt, OLD.rank, OLD.worker, OLD.host)
                             <> (NEW.run_id, NEW.attempt, NEW.rank, NEW.worker, NEW.host)) THEN
        RAISE EXCEPTION 'a member that ended, and who it was, stays as it is' USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.ended_at IS NULL THEN
        PERFORM 1 FROM training_run WHERE id = NEW.run_id AND attempt = NEW.attempt AND NEW.rank < nodes
            AND state IN ('starting', 'running', 'stopping') FOR SHARE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'members are of the attempt that holds the run' USING ERRCODE = 'restrict_violation';
        END IF;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER member_of_current_attempt BEFORE INSERT OR UPDATE ON training_runmember
    FOR EACH ROW EXECUTE FUNCTION plackett_member_of_current_attempt();

-- An attempt ends everywhere at once: no open member outlives it.
CREATE FUNCTION plackett_members_end_with_the_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE training_runmember SET ended_at = now(), outcome = CASE NEW.state WHEN 'succeeded' THEN 'done' ELSE 'lost' END
        WHERE run_id = NEW.id AND ended_at IS NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER members_end_with_the_attempt AFTER UPDATE OF state ON training_run FOR EACH ROW
    WHEN (OLD.nodes > 1 AND OLD.state IN ('starting', 'running', 'stopping')
          AND NEW.state NOT IN ('starting', 'running', 'stopping'))
    EXECUTE FUNCTION plackett_members_end_with_the_attempt();
"""
DROP_RULES = """
DROP TRIGGER run_keeps_its_size ON training_run;
DROP TRIGGER members_end_with_the_attempt ON training_run;
DROP TRIGGER member_of_current_attempt ON training_runmember;
DROP FUNCTION plackett_run_keeps_its_size();
DROP FUNCTION plackett_members_end_with_the_attempt();
DROP FUNCTION plackett_member_of_current_attempt();
"""


class Migration(migrations.Migration):
    dependencies = [("training", "0007_stretches_of_metrics")]

    operations = [
        migrations.CreateModel(
            name="RunMember",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("attempt", models.PositiveIntegerField()),
                ("rank", models.PositiveSmallIntegerField(help_text="Of the machine; 0 is where the others meet.")),
                ("worker", models.CharField(max_length=200)),
                ("host", models.CharField(max_length=200)),
                ("address", models.CharField(help_text="At which the others reach it.", max_length=200)),
                (
                    "port",
                    models.PositiveIntegerField(
                        blank=True, help_text="Of rank 0, once it is ready for the others.", null=True
                    ),
                ),
                (
                    "lease_expires_at",
                    models.DateTimeField(blank=True, help_text="Null: rank 0, whose lease is the run's.", null=True),
                ),
                ("joined_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
                ("outcome", models.CharField(blank=True, choices=[("done", "Done"), ("lost", "Lost")], max_length=10)),
            ],
            options={
                "ordering": ["run", "attempt", "rank"],
            },
        ),
        migrations.AddField(
            model_name="run",
            name="nodes",
            field=models.PositiveSmallIntegerField(
                db_default=1, default=1, help_text="Machines that train it together."
            ),
        ),
        migrations.AddField(
            model_name="run",
            name="processes",
            field=models.PositiveSmallIntegerField(
                db_default=1,
                default=1,
                help_text="On each machine, one for each GPU; fixed, as a resumed run must have as many.",
            ),
        ),
        migrations.AddField(
            model_name="worker",
            name="processes",
            field=models.PositiveSmallIntegerField(
                db_default=1, default=1, help_text="Of one run that it starts side by side."
            ),
        ),
        migrations.AddConstraint(
            model_name="run",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("nodes__gte", 1), ("nodes__lte", 64), ("processes__gte", 1), ("processes__lte", 64)
                ),
                name="run_processes_from_1",
            ),
        ),
        migrations.AddField(
            model_name="runmember",
            name="run",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="members", to="training.run"
            ),
        ),
        migrations.AddConstraint(
            model_name="runmember",
            constraint=models.UniqueConstraint(fields=("run", "attempt", "rank"), name="one_member_per_rank"),
        ),
        migrations.AddConstraint(
            model_name="runmember",
            constraint=models.UniqueConstraint(
                condition=models.Q(("ended_at__isnull", True)),
                fields=("run", "worker"),
                name="one_open_member_per_worker",
            ),
        ),
        migrations.AddConstraint(
            model_name="runmember",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("ended_at__isnull", True), ("outcome", "")),
                    models.Q(("ended_at__isnull", False), ("outcome__in", ["done", "lost"])),
                    _connector="OR",
                ),
                name="member_ends_with_an_outcome",
            ),
        ),
        migrations.AddConstraint(
            model_name="runmember",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("rank", 0), models.Q(("lease_expires_at__isnull", False), ("rank__gte", 1)), _connector="OR"
                ),
                name="member_has_a_lease",
            ),
        ),
        migrations.RunSQL(ADD_KEY, DROP_KEY),
        migrations.RunSQL(RULES, DROP_RULES),
    ]
