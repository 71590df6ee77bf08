"""Rules that a column constraint cannot say: how a run moves, who may write for it, and lineage inside one project.

Each is broken by raw SQL in tests/training/django/test_run_rules.py.
"""

from django.db import migrations

COMPOSITE_KEYS = [
    # (table, constraint, columns, referenced table, referenced columns)
    ("training_run", "run_snapshot_of_its_project", "snapshot_id, project_id", "annotate_snapshot", "id, project_id"),
    ("training_run", "run_parent_of_its_project", "parent_id, project_id", "training_run", "id, project_id"),
    ("training_modelversion", "model_run_of_its_project", "run_id, project_id", "training_run", "id, project_id"),
    ("training_runmetric", "metric_of_an_attempt", "run_id, attempt", "training_runattempt", "run_id, number"),
]

ADD_KEYS = "\n".join(
    f"ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY ({columns}) REFERENCES {other} ({theirs})"
    " DEFERRABLE INITIALLY DEFERRED;"
    for table, name, columns, other, theirs in COMPOSITE_KEYS
)
DROP_KEYS = "\n".join(f"ALTER TABLE {table} DROP CONSTRAINT {name};" for table, name, *_ in COMPOSITE_KEYS)

MOVES = """
CREATE FUNCTION plackett_run_begins() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state NOT IN ('waiting', 'queued') OR NEW.attempt <> 0 THEN
        RAISE EXCEPTION 'a run begins waiting or queued, before its first attempt' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER run_begins BEFORE INSERT ON training_run FOR EACH ROW EXECUTE FUNCTION plackett_run_begins();

CREATE FUNCTION plackett_run_moves() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    fixed text[] := '{id,project_id,kind,snapshot_id,parent_id,base_model,config,started_by_id,created_at}';
    key text;
    claimed integer := (OLD.state = 'queued' AND NEW.state = 'starting')::integer;
    next_states text[] := CASE OLD.state
        WHEN 'waiting' THEN '{queued,cancelled,failed}'
        WHEN 'queued' THEN '{starting,cancelled}'
        WHEN 'starting' THEN '{running,stopping,queued,failed,cancelled}'
        WHEN 'running' THEN '{stopping,queued,succeeded,failed,cancelled}'
        WHEN 'stopping' THEN '{succeeded,failed,cancelled}'
        WHEN 'failed' THEN '{queued}'
        WHEN 'cancelled' THEN '{queued}'
        ELSE '{}' END;
BEGIN
    FOREACH key IN ARRAY fixed LOOP
        IF to_jsonb(OLD) -> key IS DISTINCT FROM to_jsonb(NEW) -> key THEN
            RAISE EXCEPTION 'what decides a run is fixed: % cannot change', key USING ERRCODE = 'restrict_violation';
        END IF;
    END LOOP;
    IF NEW.state <> OLD.state AND NOT NEW.state = ANY (next_states) THEN
        RAISE EXCEPTION 'a run does not move from % to %', OLD.state, NEW.state USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.attempt <> OLD.attempt + claimed THEN
        RAISE EXCEPTION 'each claim of a queued run, and nothing else, is the next attempt'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER run_moves BEFORE UPDATE ON training_run FOR EACH ROW EXECUTE FUNCTION plackett_run_moves();

-- The snapshot's row is locked, so that a run cannot slip in while a withdrawal is on its way.
CREATE FUNCTION plackett_run_of_frozen_snapshot() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.snapshot_id IS NOT NULL THEN
        PERFORM 1 FROM annotate_snapshot WHERE id = NEW.snapshot_id AND state = 'frozen' FOR SHARE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'a withdrawn snapshot trains no run' USING ERRCODE = 'restrict_violation';
        END IF;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER run_of_frozen_snapshot BEFORE INSERT ON training_run
    FOR EACH ROW EXECUTE FUNCTION plackett_run_of_frozen_snapshot();
CREATE TRIGGER run_queued_from_frozen_snapshot BEFORE UPDATE OF state ON training_run
    FOR EACH ROW WHEN (NEW.state = 'queued' AND OLD.state IN ('waiting', 'failed', 'cancelled'))
    EXECUTE FUNCTION plackett_run_of_frozen_snapshot();
"""
DROP_MOVES = """
DROP TRIGGER run_begins ON training_run;
DROP TRIGGER run_moves ON training_run;
DROP TRIGGER run_of_frozen_snapshot ON training_run;
DROP TRIGGER run_queued_from_frozen_snapshot ON training_run;
DROP FUNCTION plackett_run_begins();
DROP FUNCTION plackett_run_moves();
DROP FUNCTION plackett_run_of_frozen_snapshot();
"""

ATTEMPTS = """
-- Measurements are written under the attempt that holds the run now. The run's row is locked against a claim.
CREATE FUNCTION plackett_metric_of_current_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM training_run WHERE id IN (SELECT run_id FROM written) ORDER BY id FOR SHARE;
    IF EXISTS (
        SELECT 1 FROM written JOIN training_run run ON run.id = written.run_id
        WHERE run.attempt <> written.attempt OR run.state NOT IN ('starting', 'running', 'stopping')
    ) THEN
        RAISE EXCEPTION 'only the attempt that holds a run writes its metrics' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER metric_of_current_attempt AFTER INSERT ON training_runmetric REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION plackett_metric_of_current_attempt();
CREATE TRIGGER changed_metric_of_current_attempt AFTER UPDATE ON training_runmetric REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION plackett_metric_of_current_attempt();

CREATE FUNCTION plackett_attempt_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.outcome <> ''
       OR (OLD.run_id, OLD.number, OLD.worker, OLD.host) <> (NEW.run_id, NEW.number, NEW.worker, NEW.host) THEN
        RAISE EXCEPTION 'an attempt that ended, and whose it was, stays as it is' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER attempt_stays BEFORE UPDATE ON training_runattempt
    FOR EACH ROW EXECUTE FUNCTION plackett_attempt_stays();

CREATE FUNCTION plackett_lineage_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.project_id, OLD.kind, OLD.folder, OLD.created_at) <> (NEW.project_id, NEW.kind, NEW.folder, NEW.created_at)
       OR OLD.run_id IS DISTINCT FROM NEW.run_id OR OLD.parent_id IS DISTINCT FROM NEW.parent_id THEN
        RAISE EXCEPTION 'where a model came from is fixed' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER lineage_stays BEFORE UPDATE ON training_modelversion
    FOR EACH ROW EXECUTE FUNCTION plackett_lineage_stays();
"""
DROP_ATTEMPTS = """
DROP TRIGGER metric_of_current_attempt ON training_runmetric;
DROP TRIGGER changed_metric_of_current_attempt ON training_runmetric;
DROP TRIGGER attempt_stays ON training_runattempt;
DROP TRIGGER lineage_stays ON training_modelversion;
DROP FUNCTION plackett_metric_of_current_attempt();
DROP FUNCTION plackett_attempt_stays();
DROP FUNCTION plackett_lineage_stays();
"""


class Migration(migrations.Migration):
    # Triggers guard annotate's snapshots too, so its own rules come first.
    dependencies = [("training", "0001_runs_and_models"), ("annotate", "0002_rules_across_tables")]
    operations = [
        migrations.RunSQL(ADD_KEYS, DROP_KEYS),
        migrations.RunSQL(MOVES, DROP_MOVES),
        migrations.RunSQL(ATTEMPTS, DROP_ATTEMPTS),
    ]
