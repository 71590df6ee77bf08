"""Rules of rankings and of what is never changed, broken by raw SQL as in test_database_rules.py."""

from typing import Any

import pytest

from annotate.models import (
    Entry,
    Ranking,
    TaskResponse,
)
from annotate.services.queue import next_leases
from annotate.services.rankings import revise_ranking
from tests.annotate.factories import sha256
from tests.annotate.helpers import answer_of, submit
from tests.annotate.rules_world import World, copy, refused, sql, world

pytestmark = pytest.mark.django_db
__all__ = ["world"]  # fixtures


def test_a_ranking_cannot_be_changed_or_deleted(world: World) -> None:
    for change in ("all_bad = true", "strengths = '{3}'", "seconds = 1", "counted = false", "withdrawn_at = NULL"):
        assert "immutable" in refused(lambda c=change: sql(f"UPDATE annotate_ranking SET {c} WHERE true"))
    assert "append-only" in refused(lambda: sql("DELETE FROM annotate_ranking"))


def test_a_withdrawal_blanks_everything_it_must(world: World) -> None:
    carol_lease = next_leases(project=world.project, annotator=world.carol)[0]
    noted = submit(carol_lease, world.carol, rationale="because")
    assert "must blank" in refused(
        lambda: sql("UPDATE annotate_ranking SET withdrawn_at = now() WHERE id = %s", noted.pk)
    )
    sql("UPDATE annotate_ranking SET withdrawn_at = now(), rationale = NULL WHERE id = %s", noted.pk)
    assert "immutable" in refused(
        lambda: sql("UPDATE annotate_ranking SET withdrawn_at = NULL WHERE id = %s", noted.pk)
    )


@pytest.mark.parametrize("table", ["entry", "change", "projectversion"])
@pytest.mark.parametrize("statement", ["UPDATE annotate_{} SET id = id", "DELETE FROM annotate_{}"])
def test_history_is_append_only(world: World, table: str, statement: str) -> None:
    assert "append-only" in refused(lambda: sql(statement.format(table)))


@pytest.mark.parametrize("table", ["taskresponse", "lease"])
def test_what_was_shown_is_never_changed(world: World, table: str) -> None:
    assert "append-only" in refused(lambda: sql(f"UPDATE annotate_{table} SET id = id"))


def test_prompts_and_responses_are_immutable_but_for_withdrawal(world: World) -> None:
    assert "immutable" in refused(lambda: sql("UPDATE annotate_response SET text = 'better'"))
    assert "immutable" in refused(lambda: sql("UPDATE annotate_response SET model = 'x'"))
    assert "immutable" in refused(lambda: sql("UPDATE annotate_prompt SET messages = '[1]'"))
    assert "must blank" in refused(lambda: sql("UPDATE annotate_response SET withdrawn_at = now()"))
    sql("UPDATE annotate_response SET withdrawn_at = now(), text = '', thinking = NULL, extra = '{}'")
    sql("UPDATE annotate_prompt SET withdrawn_at = now(), messages = '[]'")


def test_one_ranking_per_revision_and_one_successor(world: World) -> None:
    assert "one_ranking_per_revision" in refused(lambda: copy(world.ranking))
    assert "only_later_revisions_supersede" in refused(lambda: copy(world.ranking, revision=2))
    assert "revision_follows_the_last" in refused(
        lambda: copy(world.ranking, revision=3, supersedes_id=world.ranking.pk)
    )
    assert "revision_follows_the_last" in refused(
        lambda: copy(
            world.ranking, revision=2, supersedes_id=world.ranking.pk, annotator_id=world.carol.pk, slot_id=None,
            lease_id=None, counted=False,
        )
    )  # fmt: skip
    slot = world.ranked.slots.get()
    second = revise_ranking(
        ranking_id=world.ranking.pk, supersedes=world.ranking.pk, annotator=world.bob, answer=answer_of(slot)
    )
    assert "annotate_ranking_supersedes_id_key" in refused(
        lambda: copy(second, annotator_id=world.carol.pk, lease_id=None)
    )


def test_a_revision_keeps_its_slot_and_whether_it_counts(world: World) -> None:
    assert "keeps its slot" in refused(
        lambda: copy(world.ranking, revision=2, supersedes_id=world.ranking.pk, slot_id=None, counted=False)
    )


def test_a_counted_ranking_has_a_slot_of_its_own_task_held_by_its_annotator(world: World) -> None:
    extra = {"slot_id": None, "lease_id": None, "annotator_id": world.carol.pk}
    assert "counted_means_slot_or_import" in refused(lambda: copy(world.ranking, **extra))
    assert "ranking_slot_held_by_annotator" in refused(
        lambda: copy(world.ranking, annotator_id=world.carol.pk, lease_id=None)
    )
    free = world.free.slots.get()
    assert "ranking_slot_of_its_task" in refused(
        lambda: copy(world.ranking, revision=1, annotator_id=world.carol.pk, lease_id=None, slot_id=free.pk)
    )


def test_an_entry_names_its_own_rankings_task_and_one_of_its_responses(world: World) -> None:
    entry = world.ranking.entries.first()
    foreign = TaskResponse.objects.filter(task=world.free).values_list("response_id", flat=True)[0]
    assert "entry_response_of_its_task" in refused(lambda: copy(entry, response_id=foreign))
    assert "entry_ranking_of_its_task" in refused(lambda: copy(entry, response_id=foreign, task_id=world.free.pk))
    assert "one_entry_per_ranking_and_response" in refused(lambda: copy(entry))
    assert "tier_from_1" in refused(lambda: copy(entry, tier=0))


@pytest.mark.parametrize(
    ("tiers", "fields", "message"),
    [
        ([1, 2], {}, "one entry per response"),
        ([1, 3, None], {}, "without a gap"),
        ([2, 3, None], {}, "without a gap"),
        ([1, None, None], {"strengths": []}, "at least two"),
        ([None, None, None], {"strengths": []}, "at least two"),
        ([1, 2, 3], {"strengths": [1]}, "one per gap"),
        ([1, 2, 3], {"strengths": [1, 4]}, "one per gap"),
        ([1, 1, 1], {"strengths": [1]}, "one per gap"),
    ],
)
def test_a_ranking_is_whole(world: World, tiers: list[int | None], fields: dict[str, Any], message: str) -> None:
    def write() -> None:
        broken = Ranking.objects.create(
            project=world.project, task=world.ranked, annotator=world.carol, version=world.ranking.version,
            counted=False, source="api", content_sha256=sha256("x"), presented_order=[],
            **{"strengths": [None] * (len({t for t in tiers if t}) - 1), **fields},
        )  # fmt: skip
        responses = TaskResponse.objects.filter(task=world.ranked).values_list("response_id", flat=True)
        for response, tier in zip(responses, tiers, strict=False):
            Entry.objects.create(ranking=broken, task=world.ranked, response_id=response, tier=tier)

    assert message in refused(write)
