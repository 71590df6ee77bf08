"""Rules that a column constraint cannot say: composite foreign keys, counts across rows, and what may never change.

Each is broken by raw SQL in tests/annotate/test_database_rules.py.
"""

from django.db import migrations

COMPOSITE_KEYS = [
    # (table, constraint, columns, referenced table, referenced columns, deferred)
    (
        "annotate_prompt",
        "prompt_split_group_of_its_project",
        "split_group_id, project_id",
        "annotate_splitgroup",
        "id, project_id",
    ),
    (
        "annotate_rankingtask",
        "task_prompt_of_its_project",
        "prompt_id, project_id",
        "annotate_prompt",
        "id, project_id",
    ),
    (
        "annotate_taskresponse",
        "task_response_task_of_prompt",
        "task_id, prompt_id",
        "annotate_rankingtask",
        "id, prompt_id",
    ),
    (
        "annotate_taskresponse",
        "task_response_response_of_prompt",
        "response_id, prompt_id",
        "annotate_response",
        "id, prompt_id",
    ),
    ("annotate_slot", "slot_task_of_its_project", "task_id, project_id", "annotate_rankingtask", "id, project_id"),
    (
        "annotate_slot",
        "slot_version_of_its_project",
        "version_id, project_id",
        "annotate_projectversion",
        "id, project_id",
    ),
    (
        "annotate_slot",
        "slot_lease_of_its_holder",
        "lease_id, task_id, holder_id",
        "annotate_lease",
        "id, task_id, annotator_id",
    ),
    ("annotate_slot", "slot_ranking_is_its_own", "current_ranking_id, id", "annotate_ranking", "id, slot_id"),
    ("annotate_skip", "skip_task_of_its_project", "task_id, project_id", "annotate_rankingtask", "id, project_id"),
    (
        "annotate_ranking",
        "ranking_task_of_its_project",
        "task_id, project_id",
        "annotate_rankingtask",
        "id, project_id",
    ),
    (
        "annotate_ranking",
        "ranking_version_of_its_project",
        "version_id, project_id",
        "annotate_projectversion",
        "id, project_id",
    ),
    ("annotate_ranking", "ranking_slot_of_its_task", "slot_id, task_id", "annotate_slot", "id, task_id"),
    ("annotate_ranking", "ranking_slot_held_by_annotator", "slot_id, annotator_id", "annotate_slot", "id, holder_id"),
    (
        "annotate_ranking",
        "ranking_lease_of_annotator",
        "lease_id, task_id, annotator_id",
        "annotate_lease",
        "id, task_id, annotator_id",
    ),
    ("annotate_entry", "entry_ranking_of_its_task", "ranking_id, task_id", "annotate_ranking", "id, task_id"),
    (
        "annotate_entry",
        "entry_response_of_its_task",
        "task_id, response_id",
        "annotate_taskresponse",
        "task_id, response_id",
    ),
]

ADD_KEYS = "\n".join(
    f"ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY ({columns}) REFERENCES {other} ({theirs}) DEFERRABLE INITIALLY DEFERRED;"
    for table, name, columns, other, theirs in COMPOSITE_KEYS
)
DROP_KEYS = "\n".join(f"ALTER TABLE {table} DROP CONSTRAINT {name};" for table, name, *_ in COMPOSITE_KEYS)

# A revision follows the last one of the same task and annotator.
REVISIONS = """
ALTER TABLE annotate_ranking ADD COLUMN previous_revision integer GENERATED ALWAYS AS (NULLIF(revision - 1, 0)) STORED;
ALTER TABLE annotate_ranking ADD CONSTRAINT revision_follows_the_last
    FOREIGN KEY (supersedes_id, task_id, annotator_id, previous_revision)
    REFERENCES annotate_ranking (id, task_id, annotator_id, revision);
"""
DROP_REVISIONS = """
ALTER TABLE annotate_ranking DROP CONSTRAINT revision_follows_the_last;
ALTER TABLE annotate_ranking DROP COLUMN previous_revision;
"""

APPEND_ONLY = """
CREATE FUNCTION plackett_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$;

CREATE FUNCTION plackett_only_withdrawal() RETURNS trigger LANGUAGE plpgsql AS $$
-- Arguments: the columns a withdrawal blanks. Anything else that differs is refused. (previous_revision is generated, and
-- not yet known in a BEFORE trigger.)
DECLARE
    before jsonb := to_jsonb(OLD) - TG_ARGV::text[] - '{withdrawn_at,previous_revision}'::text[];
    after jsonb := to_jsonb(NEW) - TG_ARGV::text[] - '{withdrawn_at,previous_revision}'::text[];
    blanked text;
    held jsonb;
BEGIN
    IF OLD.withdrawn_at IS NOT NULL OR NEW.withdrawn_at IS NULL OR before <> after THEN
        RAISE EXCEPTION '% is immutable: only a withdrawal may change it', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END IF;
    FOREACH blanked IN ARRAY TG_ARGV LOOP
        held := to_jsonb(NEW) -> blanked;
        IF held NOT IN ('null'::jsonb, '""'::jsonb, '[]'::jsonb, '{}'::jsonb) THEN
            RAISE EXCEPTION 'a withdrawal must blank %.%', TG_TABLE_NAME, blanked USING ERRCODE = 'restrict_violation';
        END IF;
    END LOOP;
    RETURN NEW;
END $$;

CREATE FUNCTION plackett_frozen_snapshot() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> 'frozen' OR NEW.state <> 'withdrawn'
       OR to_jsonb(OLD) - '{state,withdrawn_at}'::text[] <> to_jsonb(NEW) - '{state,withdrawn_at}'::text[] THEN
        RAISE EXCEPTION 'a snapshot is immutable: only a withdrawal may change it' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER only_withdrawal BEFORE UPDATE ON annotate_prompt FOR EACH ROW
    EXECUTE FUNCTION plackett_only_withdrawal('messages', 'answer', 'tests', 'tags', 'extra');
CREATE TRIGGER only_withdrawal BEFORE UPDATE ON annotate_response FOR EACH ROW
    EXECUTE FUNCTION plackett_only_withdrawal('text', 'thinking', 'extra');
CREATE TRIGGER only_withdrawal BEFORE UPDATE ON annotate_demonstration FOR EACH ROW
    EXECUTE FUNCTION plackett_only_withdrawal('text');
CREATE TRIGGER only_withdrawal BEFORE UPDATE ON annotate_ranking FOR EACH ROW
    EXECUTE FUNCTION plackett_only_withdrawal('rationale', 'rewrite_text', 'rewrite_of_id', 'extra');
CREATE TRIGGER never_deleted BEFORE DELETE ON annotate_ranking FOR EACH ROW EXECUTE FUNCTION plackett_refuse();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON annotate_entry FOR EACH ROW EXECUTE FUNCTION plackett_refuse();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON annotate_change FOR EACH ROW EXECUTE FUNCTION plackett_refuse();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON annotate_projectversion FOR EACH ROW EXECUTE FUNCTION plackett_refuse();
CREATE TRIGGER never_changed BEFORE UPDATE ON annotate_taskresponse FOR EACH ROW EXECUTE FUNCTION plackett_refuse();
CREATE TRIGGER never_changed BEFORE UPDATE ON annotate_lease FOR EACH ROW EXECUTE FUNCTION plackett_refuse();
CREATE TRIGGER never_changed BEFORE UPDATE ON annotate_splitgroup FOR EACH ROW EXECUTE FUNCTION plackett_refuse();
CREATE TRIGGER frozen BEFORE UPDATE ON annotate_snapshot FOR EACH ROW EXECUTE FUNCTION plackett_frozen_snapshot();
CREATE TRIGGER never_deleted BEFORE DELETE ON annotate_snapshot FOR EACH ROW EXECUTE FUNCTION plackett_refuse();
"""
DROP_APPEND_ONLY = """
DROP TRIGGER only_withdrawal ON annotate_prompt;
DROP TRIGGER only_withdrawal ON annotate_response;
DROP TRIGGER only_withdrawal ON annotate_demonstration;
DROP TRIGGER only_withdrawal ON annotate_ranking;
DROP TRIGGER never_deleted ON annotate_ranking;
DROP TRIGGER append_only ON annotate_entry;
DROP TRIGGER append_only ON annotate_change;
DROP TRIGGER append_only ON annotate_projectversion;
DROP TRIGGER never_changed ON annotate_taskresponse;
DROP TRIGGER never_changed ON annotate_lease;
DROP TRIGGER never_changed ON annotate_splitgroup;
DROP TRIGGER frozen ON annotate_snapshot;
DROP TRIGGER never_deleted ON annotate_snapshot;
DROP FUNCTION plackett_refuse();
DROP FUNCTION plackett_only_withdrawal();
DROP FUNCTION plackett_frozen_snapshot();
"""

COUNTS = """
-- No task has more slots than its overlap, so none can get more counted rankings. The task row is locked first: two
-- transactions that add a slot each cannot both see room for one.
CREATE FUNCTION plackett_slots_within_overlap() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM annotate_rankingtask WHERE id IN (SELECT DISTINCT task_id FROM added) ORDER BY id FOR NO KEY UPDATE;
    IF EXISTS (
        SELECT 1 FROM annotate_rankingtask task JOIN (SELECT DISTINCT task_id FROM added) touched ON touched.task_id = task.id
        WHERE task.overlap < (SELECT count(*) FROM annotate_slot WHERE annotate_slot.task_id = task.id)
    ) THEN
        RAISE EXCEPTION 'a task has at most overlap slots' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER slots_within_overlap AFTER INSERT ON annotate_slot REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION plackett_slots_within_overlap();

CREATE FUNCTION plackett_overlap_covers_slots() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.overlap < (SELECT count(*) FROM annotate_slot WHERE task_id = NEW.id) THEN
        RAISE EXCEPTION 'overlap cannot fall below the number of slots' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER overlap_covers_slots BEFORE UPDATE OF overlap ON annotate_rankingtask
    FOR EACH ROW EXECUTE FUNCTION plackett_overlap_covers_slots();

CREATE FUNCTION plackett_slot_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.task_id <> OLD.task_id OR NEW.number <> OLD.number OR NEW.project_id <> OLD.project_id THEN
        RAISE EXCEPTION 'a slot stays with its task' USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.state = 'done' AND NEW.state <> 'done' THEN
        RAISE EXCEPTION 'a done slot stays done' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER slot_stays BEFORE UPDATE ON annotate_slot FOR EACH ROW EXECUTE FUNCTION plackett_slot_stays();

-- A task has 2 to 9 responses, judged when the transaction that made it commits, and its set is closed once it is ranked.
CREATE FUNCTION plackett_task_has_2_to_9() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    -- Through jsonb: plpgsql resolves both branches' columns, and neither table has the other's.
    subject bigint := CASE TG_OP WHEN 'INSERT' THEN to_jsonb(NEW) ->> 'id' ELSE to_jsonb(OLD) ->> 'task_id' END;
BEGIN
    IF EXISTS (SELECT 1 FROM annotate_rankingtask WHERE id = subject)
       AND (SELECT count(*) FROM annotate_taskresponse WHERE task_id = subject) NOT BETWEEN 2 AND 9 THEN
        RAISE EXCEPTION 'a ranking task has 2 to 9 responses' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER task_has_2_to_9 AFTER INSERT ON annotate_rankingtask DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION plackett_task_has_2_to_9();
CREATE CONSTRAINT TRIGGER task_keeps_2_to_9 AFTER DELETE ON annotate_taskresponse DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION plackett_task_has_2_to_9();

CREATE FUNCTION plackett_task_set_closed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM annotate_lease WHERE task_id IN (SELECT task_id FROM added))
       OR EXISTS (SELECT 1 FROM annotate_ranking WHERE task_id IN (SELECT task_id FROM added))
       OR EXISTS (SELECT task_id FROM annotate_taskresponse WHERE task_id IN (SELECT task_id FROM added)
                  GROUP BY task_id HAVING count(*) > 9) THEN
        RAISE EXCEPTION 'the responses of a task are fixed before it is shown, and at most 9' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER task_set_closed AFTER INSERT ON annotate_taskresponse REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION plackett_task_set_closed();

-- A ranking is whole when its transaction commits: every response of the task has one entry, tiers run 1, 2, 3 … without
-- a gap, there is one strength (1 to 3 or null) per gap, and it says something: two placed responses, or all bad.
CREATE FUNCTION plackett_ranking_is_whole() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    entries integer; placed integer; tiers integer; last_tier integer; expected integer;
BEGIN
    SELECT count(*), count(tier), count(DISTINCT tier), COALESCE(max(tier), 0)
        INTO entries, placed, tiers, last_tier FROM annotate_entry WHERE ranking_id = NEW.id;
    SELECT count(*) INTO expected FROM annotate_taskresponse WHERE task_id = NEW.task_id;
    IF entries <> expected THEN
        RAISE EXCEPTION 'a ranking has one entry per response of its task' USING ERRCODE = 'check_violation';
    END IF;
    IF tiers <> last_tier THEN
        RAISE EXCEPTION 'tiers run from 1 without a gap' USING ERRCODE = 'check_violation';
    END IF;
    IF placed < 2 AND NOT NEW.all_bad THEN
        RAISE EXCEPTION 'a ranking places at least two responses or says that all are bad' USING ERRCODE = 'check_violation';
    END IF;
    IF cardinality(NEW.strengths) <> GREATEST(tiers - 1, 0)
       OR EXISTS (SELECT 1 FROM unnest(NEW.strengths) AS s(value) WHERE value NOT BETWEEN 1 AND 3) THEN
        RAISE EXCEPTION 'strengths are 1 to 3 or null, one per gap between tiers' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER ranking_is_whole AFTER INSERT ON annotate_ranking DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION plackett_ranking_is_whole();

-- A revision keeps its slot and what it counts for.
CREATE FUNCTION plackett_revision_keeps_slot() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.supersedes_id IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM annotate_ranking WHERE id = NEW.supersedes_id
        AND slot_id IS NOT DISTINCT FROM NEW.slot_id AND counted = NEW.counted
    ) THEN
        RAISE EXCEPTION 'a revision keeps its slot and whether it counts' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER revision_keeps_slot AFTER INSERT ON annotate_ranking
    FOR EACH ROW EXECUTE FUNCTION plackett_revision_keeps_slot();
"""
DROP_COUNTS = """
DROP TRIGGER slots_within_overlap ON annotate_slot;
DROP TRIGGER overlap_covers_slots ON annotate_rankingtask;
DROP TRIGGER slot_stays ON annotate_slot;
DROP TRIGGER task_has_2_to_9 ON annotate_rankingtask;
DROP TRIGGER task_keeps_2_to_9 ON annotate_taskresponse;
DROP TRIGGER task_set_closed ON annotate_taskresponse;
DROP TRIGGER ranking_is_whole ON annotate_ranking;
DROP TRIGGER revision_keeps_slot ON annotate_ranking;
DROP FUNCTION plackett_slots_within_overlap();
DROP FUNCTION plackett_overlap_covers_slots();
DROP FUNCTION plackett_slot_stays();
DROP FUNCTION plackett_task_has_2_to_9();
DROP FUNCTION plackett_task_set_closed();
DROP FUNCTION plackett_ranking_is_whole();
DROP FUNCTION plackett_revision_keeps_slot();
"""


class Migration(migrations.Migration):
    dependencies = [("annotate", "0001_record_of_judgement")]
    operations = [
        # task_id, response_id: Django's unique constraint on TaskResponse (task, response) is what the entry key needs.
        migrations.RunSQL(ADD_KEYS, DROP_KEYS),
        migrations.RunSQL(REVISIONS, DROP_REVISIONS),
        migrations.RunSQL(APPEND_ONLY, DROP_APPEND_ONLY),
        migrations.RunSQL(COUNTS, DROP_COUNTS),
    ]
