"""Each rule of the data model, broken by raw SQL: Postgres itself must refuse, whatever the code above it does."""

import pytest
from django.db import transaction

from annotate.models import (
    Change,
    Entry,
    Lease,
    ProjectVersion,
    Prompt,
    Ranking,
    RankingTask,
    Response,
    Skip,
    Slot,
    SplitGroup,
    TaskResponse,
)
from annotate.services.drafts import save_draft
from annotate.services.projects import add_member
from annotate.services.skips import skip_task
from tests.annotate.factories import make_task, sha256
from tests.annotate.rules_world import World, copy, refused, sql, world

pytestmark = pytest.mark.django_db
__all__ = ["world"]  # fixtures


# --- slots ------------------------------------------------------------------------------------------------------------


def test_a_task_has_one_slot_per_number(world: World) -> None:
    sql("UPDATE annotate_rankingtask SET overlap = 2 WHERE id = %s", world.free.pk)
    assert "one_slot_per_task_and_number" in refused(lambda: copy(world.free.slots.get()))


def test_a_person_holds_one_slot_of_a_task(world: World) -> None:
    sql("UPDATE annotate_rankingtask SET overlap = 2 WHERE id = %s", world.leased.pk)
    slot = world.leased.slots.get()
    lease = Lease.objects.get(task=world.leased)
    again = Lease.objects.create(
        task=world.leased, annotator=world.bob, version=lease.version, presented_order=lease.presented_order
    )
    assert "one_slot_per_task_and_holder" in refused(lambda: copy(slot, number=2, lease_id=str(again.pk)))


def test_a_task_has_no_more_slots_than_its_overlap(world: World) -> None:
    assert "at most overlap slots" in refused(lambda: copy(world.free.slots.get(), number=2))
    assert "below the number of slots" in refused(
        lambda: sql("UPDATE annotate_rankingtask SET overlap = 0 WHERE id = %s", world.free.pk)
    )


@pytest.mark.parametrize(
    "change",
    [
        "state = 'leased'",
        "state = 'done'",
        "state = 'lost'",
        "holder_id = (SELECT max(id) FROM annotate_user)",
        "expires_at = now()",
        "number = 0",
        "lane = NULL",
    ],
)
def test_a_free_slot_is_free_in_every_column(world: World, change: str) -> None:
    refused(lambda: sql(f"UPDATE annotate_slot SET {change} WHERE task_id = %s", world.free.pk))


def test_a_slot_stays_with_its_task_and_a_done_one_stays_done(world: World) -> None:
    free = world.free.slots.get()
    assert "stays with its task" in refused(
        lambda: sql("UPDATE annotate_slot SET task_id = %s WHERE id = %s", world.ranked.pk, free.pk)
    )
    assert "stays done" in refused(
        lambda: sql(
            "UPDATE annotate_slot SET state = 'free', holder_id = NULL, lease_id = NULL, version_id = NULL,"
            " presented_order = NULL, current_ranking_id = NULL WHERE task_id = %s",
            world.ranked.pk,
        )
    )


def test_a_slot_belongs_to_its_tasks_project_and_its_projects_version(world: World) -> None:
    assert "slot_task_of_its_project" in refused(
        lambda: copy(world.foreign.slots.get(), project_id=world.project.pk, task_id=_bare_task(world).pk)
    )
    foreign_version = ProjectVersion.objects.get(project=world.other)
    assert "slot_version_of_its_project" in refused(
        lambda: sql("UPDATE annotate_slot SET version_id = %s WHERE task_id = %s", foreign_version.pk, world.leased.pk)
    )


def _bare_task(world: World) -> RankingTask:
    """A task of the other project that has room for a slot."""
    sql("UPDATE annotate_rankingtask SET overlap = 2 WHERE id = %s", world.foreign.pk)
    sql("UPDATE annotate_slot SET lane = 5 WHERE task_id = %s", world.foreign.pk)
    sql("DELETE FROM annotate_slot WHERE task_id = %s", world.foreign.pk)
    return world.foreign


def test_a_slots_lease_and_ranking_are_its_holders_own(world: World) -> None:
    foreign_lease = Lease.objects.create(
        task=world.free, annotator=world.carol, version=world.ranking.version, presented_order=[1]
    )
    assert "slot_lease_of_its_holder" in refused(
        lambda: sql("UPDATE annotate_slot SET lease_id = %s WHERE task_id = %s", foreign_lease.pk, world.leased.pk)
    )
    assert "slot_ranking_is_its_own" in refused(
        lambda: sql(
            "UPDATE annotate_slot SET state = 'done', expires_at = NULL, current_ranking_id = %s WHERE task_id = %s;"
            "UPDATE annotate_slot SET current_ranking_id = NULL, state = 'done' WHERE false",
            _spare_ranking(world).pk,
            world.leased.pk,
        )
    )


def _spare_ranking(world: World) -> Ranking:
    """An extra, closed by no slot."""
    extra = Ranking.objects.create(
        project=world.project,
        task=world.ranked,
        annotator=world.carol,
        version=world.ranking.version,
        counted=False,
        source="api",
        strengths=[2],
        content_sha256=sha256("x"),
        presented_order=world.ranking.presented_order,
    )
    for entry in world.ranking.entries.all():
        Entry.objects.create(ranking=extra, task=world.ranked, response_id=entry.response_id, tier=entry.tier)
    return extra


def test_a_reserved_slot_is_held_by_that_person_alone(world: World) -> None:
    sql("UPDATE annotate_slot SET reserved_for_id = %s WHERE task_id = %s", world.carol.pk, world.free.pk)
    slot = world.free.slots.get()
    lease = Lease.objects.create(
        task=world.free, annotator=world.bob, version=world.ranking.version, presented_order=[1]
    )
    assert "reserved_slot_held_by_that_person" in refused(
        lambda: sql(
            "UPDATE annotate_slot SET state = 'leased', holder_id = %s, lease_id = %s, version_id = %s,"
            " presented_order = '{1}', expires_at = now() WHERE id = %s",
            world.bob.pk, lease.pk, world.ranking.version_id, slot.pk,
        )
    )  # fmt: skip


# --- prompts, tasks, the rest -----------------------------------------------------------------------------------------


def test_a_task_has_2_to_9_responses_to_its_own_prompt_and_its_set_is_closed(world: World) -> None:
    prompt = world.free.prompt
    assert "2 to 9" in refused(lambda: RankingTask.objects.create(project=world.project, prompt=prompt, overlap=1))
    assert "2 to 9" in refused(lambda: TaskResponse.objects.filter(task=world.free).delete())
    foreign = Response.objects.filter(prompt=world.leased.prompt).first()
    assert foreign is not None
    assert "task_response_response_of_prompt" in refused(
        lambda: TaskResponse.objects.create(task=world.free, prompt=prompt, response=foreign)
    )
    assert "task_response_task_of_prompt" in refused(
        lambda: TaskResponse.objects.create(task=world.free, prompt=world.leased.prompt, response=foreign)
    )
    more = Response.objects.create(prompt=world.ranked.prompt, key="late", text="late", text_sha256=sha256("late"))
    assert "fixed before it is shown" in refused(
        lambda: TaskResponse.objects.create(task=world.ranked, prompt=world.ranked.prompt, response=more)
    )


def test_tasks_prompts_and_split_groups_stay_in_their_project(world: World) -> None:
    assert "task_prompt_of_its_project" in refused(
        lambda: RankingTask.objects.create(project=world.project, prompt=world.foreign.prompt, overlap=1)
    )
    prompt = Prompt.objects.get(pk=world.free.prompt_id)
    group = SplitGroup.objects.filter(project=world.other).first()
    assert group is not None
    assert "prompt_split_group_of_its_project" in refused(
        lambda: copy(prompt, external_id="new", split_group_id=group.pk)
    )
    assert "one_split_group_per_key" in refused(lambda: copy(group, split="test"))
    assert "split_known" in refused(lambda: copy(group, split="dev", key_sha256=sha256("new")))


def test_names_and_contents_are_unique_in_a_project(world: World) -> None:
    named = make_task(world.project, external_id="n1").prompt
    assert "one_prompt_per_external_id" in refused(lambda: copy(named, content_sha256=sha256("other")))
    assert "one_unnamed_prompt_per_content" in refused(lambda: copy(world.free.prompt))
    response = world.free.prompt.responses.first()
    assert response is not None
    assert "one_response_per_key" in refused(lambda: copy(response))


def test_a_repeat_names_the_task_it_repeats(world: World) -> None:
    assert "repeat_names_its_task" in refused(lambda: sql("UPDATE annotate_rankingtask SET kind = 'repeat'"))


def test_one_skip_and_one_draft_per_task_and_annotator(world: World) -> None:
    slot = world.leased.slots.get()
    assert slot.lease_id is not None
    draft = save_draft(lease_id=slot.lease_id, annotator=world.bob, seen_version=0, body={})
    assert "one_draft_per_task_and_annotator" in refused(lambda: copy(draft, version=2))
    skip = skip_task(lease_id=slot.lease_id, annotator=world.bob, reason="other")
    assert "one_skip_per_task_and_annotator" in refused(lambda: copy(skip))
    assert Skip.objects.count() == 1


def test_changes_are_numbered_once_and_name_their_object(world: World) -> None:
    change = Change.objects.filter(ranking=world.ranking).get()
    assert "one_change_per_number" in refused(lambda: copy(change, kind="withdrawal"))
    assert "one_first_change_per_ranking" in refused(lambda: copy(change, number=99))
    assert "change_names_its_object" in refused(lambda: copy(change, number=99, kind="skip"))


def test_memberships_roles_and_imported_people(world: World) -> None:
    membership = add_member(project=world.project, user=world.bob)
    assert "one_membership_per_project_and_user" in refused(lambda: copy(membership))
    assert "membership_role_known" in refused(lambda: sql("UPDATE annotate_membership SET role = 'owner'"))
    assert "membership_weight" in refused(lambda: sql("UPDATE annotate_membership SET weight = -1"))
    assert "cannot_log_in" in refused(
        lambda: sql("UPDATE annotate_user SET kind = 'imported', is_active = true WHERE id = %s", world.bob.pk)
    )


def test_versions_are_numbered_once(world: World) -> None:
    version = ProjectVersion.objects.get(project=world.project)
    assert "one_version_per_number" in refused(lambda: copy(version))


def test_the_world_is_sound_before_each_break(world: World) -> None:
    sql("SET CONSTRAINTS ALL IMMEDIATE")
    assert Slot.objects.filter(state="done").count() == 1


@pytest.mark.parametrize(
    ("rule", "statement"),
    [
        ("counter_not_negative", "UPDATE annotate_counter SET value = -1"),
        ("membership_weight_0_to_100", "UPDATE annotate_membership SET weight = 101"),
        ("project_lease_at_least_30_seconds", "UPDATE annotate_project SET lease_seconds = 29"),
        ("project_open_leases_1_to_1000", "UPDATE annotate_project SET open_lease_limit = 0"),
        ("project_overlap_1_to_50", "UPDATE annotate_project SET overlap = 0"),
        ("project_skip_limit_positive", "UPDATE annotate_project SET skip_limit = 0"),
        ("task_kind_known", "UPDATE annotate_rankingtask SET kind = 'hard'"),
        ("task_state_known", "UPDATE annotate_rankingtask SET state = 'lost'"),
        ("task_priority_known", "UPDATE annotate_rankingtask SET priority = 4"),
        ("task_overlap_0_to_50", "UPDATE annotate_rankingtask SET overlap = 51"),
        ("user_theme_known", "UPDATE annotate_user SET theme = 'sepia'"),
        ("user_layout_known", "UPDATE annotate_user SET layout = 'pile'"),
        ("annotate_identityleak_response_id", "INSERT INTO annotate_identityleak (project_id, response_id, phrase,"
         " found_at) SELECT prompt.project_id, response.id, 'As ChatGPT', now() FROM annotate_response response"
         " JOIN annotate_prompt prompt ON prompt.id = prompt_id, generate_series(1, 2)"),
        ("user_kind_known", "UPDATE annotate_user SET kind = 'robot', is_active = false"),
        ("slot_number_from_1", "INSERT INTO annotate_slot (task_id, project_id, number, state, lane, offer)"
         " SELECT id, project_id, 0, 'free', 5, 1 FROM annotate_rankingtask WHERE overlap = 2"),
        ("one_cursor_per_annotator_and_lane", "INSERT INTO annotate_queuecursor (project_id, annotator_id, lane, offer)"
         " SELECT project_id, user_id, 5, n FROM annotate_membership, generate_series(1, 2) n"),
        ("one_counter_per_project_and_name", "INSERT INTO annotate_counter (project_id, name, value)"
         " SELECT project_id, name, 9 FROM annotate_counter"),
        ("one_receipt_per_version_and_user", "INSERT INTO annotate_readingreceipt (version_id, user_id, read_at)"
         " SELECT version.id, member.user_id, now() FROM annotate_projectversion version"
         " JOIN annotate_membership member USING (project_id), generate_series(1, 2)"),
        ("one_flag_per_task_annotator_and_kind", "INSERT INTO annotate_taskflag (task_id, annotator_id, kind, note)"
         " SELECT task_id, holder_id, 'unclear', '' FROM annotate_slot, generate_series(1, 2)"
         " WHERE holder_id IS NOT NULL"),
        ("task_flag_kind_known", "INSERT INTO annotate_taskflag (task_id, annotator_id, kind, note)"
         " SELECT task_id, holder_id, 'dull', '' FROM annotate_slot WHERE holder_id IS NOT NULL"),
        ("skip_reason_known", "INSERT INTO annotate_skip (project_id, task_id, annotator_id, reason, note)"
         " SELECT project_id, task_id, holder_id, 'lazy', '' FROM annotate_slot WHERE state = 'leased'"),
        ("one_row_per_task_and_response", "INSERT INTO annotate_taskresponse (task_id, prompt_id, response_id)"
         " SELECT task_id, prompt_id, response_id FROM annotate_taskresponse"),
        ("one_answer_per_key", "INSERT INTO annotate_idempotencykey"
         " (user_id, endpoint, key, body_sha256, status, answer, created_at)"
         " SELECT user_id, '/', 'k', '', 200, '{}', now() FROM annotate_membership, generate_series(1, 2)"),
        ("token_digest_is_sha256", "INSERT INTO annotate_apitoken (user_id, name, prefix, digest, scopes, created_at)"
         " SELECT user_id, 't', 'p', 'plain text', '{}', now() FROM annotate_membership LIMIT 1"),
        ("draft_version_from_1", "INSERT INTO annotate_draft (task_id, annotator_id, version, body)"
         " SELECT task_id, holder_id, 0, '{}' FROM annotate_slot WHERE state = 'leased'"),
        ("one_demonstration_per_text", "INSERT INTO annotate_demonstration"
         " (project_id, prompt_id, text, text_sha256, created_at)"
         " SELECT project_id, id, 'x', 'x', now() FROM annotate_prompt, generate_series(1, 2)"),
    ],
)  # fmt: skip
def test_every_other_rule_is_refused_by_its_name(world: World, rule: str, statement: str) -> None:
    sql("UPDATE annotate_rankingtask SET overlap = 2 WHERE id = %s", world.free.pk)
    assert rule in refused(lambda: sql(statement))


@pytest.mark.parametrize(
    "columns",
    [
        {"kind": "'first_admin'", "project_id": "project_id"},
        {"kind": "'first_admin'", "user_id": "user_id"},
        {"kind": "'invitation'", "role": "'annotator'"},
        {"kind": "'invitation'", "role": "'annotator'", "project_id": "project_id", "user_id": "user_id"},
        {"kind": "'invitation'", "role": "'owner'", "project_id": "project_id"},
        {"kind": "'password'"},
        {"kind": "'key'"},
    ],
)
def test_a_link_names_what_it_opens(world: World, columns: dict[str, str]) -> None:
    assert "link_names_what_it_opens" in refused(lambda: link(columns))


def test_a_link_is_kept_as_its_hash(world: World) -> None:
    for sound in (
        {"kind": "'first_admin'"},
        {"kind": "'invitation'", "role": "'annotator'", "project_id": "project_id"},
        {"kind": "'password'", "user_id": "user_id"},
    ):
        with transaction.atomic():
            link(sound)
            transaction.set_rollback(True)
        assert "link_digest_is_sha256" in refused(lambda sound=sound: link(sound, digest="'the link itself'"))


def link(columns: dict[str, str], *, digest: str = "repeat('a', 64)") -> None:
    """INSERT of a link; the values are SQL about one membership."""
    values = {"role": "''", "engineer": "false", "note": "''", "digest": digest} | columns
    sql(
        f"INSERT INTO annotate_onetimelink ({', '.join(values)}, created_at, expires_at)"
        f" SELECT {', '.join(values.values())}, now(), now() FROM annotate_membership LIMIT 1"
    )


def test_the_columns_of_rankings_prompts_and_versions_hold_what_they_say(world: World) -> None:
    extra = {"slot_id": None, "lease_id": None, "annotator_id": world.carol.pk, "counted": False}
    for rule, changes in {
        "ranking_source_known": {"source": "hearsay"},
        "seconds_not_negative": {"seconds": -1.0},
        "rewrite_is_whole": {"rewrite_text": "better"},
    }.items():
        assert rule in refused(lambda changes=changes: copy(world.ranking, **extra, **changes))
    assert "prompt_sha256_known" in refused(lambda: copy(world.free.prompt, content_sha256="x"))
    response = world.free.prompt.responses.first()
    assert "response_sha256_known" in refused(lambda: copy(response, key="new", text_sha256="x"))
    version = ProjectVersion.objects.get(project=world.project)
    for rule, changes in {
        "version_number_from_1": {"number": 0},
        "version_strength_known": {"number": 2, "strength": "huge"},
        "version_rationale_known": {"number": 2, "rationale": "maybe"},
    }.items():
        assert rule in refused(lambda changes=changes: copy(version, **changes))
