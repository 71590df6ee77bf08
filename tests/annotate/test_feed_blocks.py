"""What was counted ahead of exports is what counting everything anew would say, whatever happened meanwhile."""

import random
import threading
from typing import Any

import pytest
from django.db import connection

from annotate.interchange.exporting import EXPORTS
from annotate.models import Change, FeedBlock, Prompt, Ranking
from annotate.selectors.cursors import cursor_at, last_change
from annotate.selectors.line_counts import Shape, Window, shapes_of
from annotate.services import feed_blocks
from annotate.services.exports import open_export
from annotate.services.queue import next_leases
from annotate.services.skips import skip_task
from annotate.services.withdrawals import withdraw_prompt, withdraw_ranking
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.test_export import rank_one, revise

pytestmark = pytest.mark.django_db
OPTIONS: list[dict[str, str]] = [{}, {"ties": "both"}, {"ties": "soft"}, {"split": "train"}]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FeedBlock, "CHANGES", 4)


def skip_one(project: Any) -> None:
    make_task(project)
    annotator = make_user(project=project)
    (slot,) = next_leases(project=project, annotator=annotator)
    assert slot.lease_id is not None
    skip_task(lease_id=slot.lease_id, annotator=annotator, reason="long")


def do_something(project: Any, draw: random.Random) -> None:
    """One more change of any kind."""
    standing = list(Ranking.objects.filter(project=project, withdrawn_at=None, superseded_by=None).order_by("pk"))
    way = draw.choice(["rank", "rank", "rank", "bad", "skip", "revise", "withdraw", "withdraw prompt", "count"])
    if way == "rank":
        rank_one(project, tiers=draw.choice([[[0], [1], [2]], [[0, 1], [2]], [[2], [0]], [[0, 1, 2]]]))
    elif way == "bad":
        rank_one(project, tiers=draw.choice([[], [[1], [0, 2]]]), all_bad=True)
    elif way == "skip":
        skip_one(project)
    elif way == "count":
        feed_blocks.count_ahead()
    elif standing:
        one = draw.choice(standing)
        if way == "revise" and one.revision == 1:
            revise(one, draw.choice([[[1, 2], [0]], [[2], [1]]]))
        elif way == "withdraw":
            withdraw_ranking(ranking=one)
        elif way == "withdraw prompt":
            withdraw_prompt(prompt=Prompt.objects.get(tasks=one.task_id))


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_the_lines_whatever_happened(seed: int) -> None:
    project, draw, used = make_project(), random.Random(seed), 0
    for _ in range(40):
        do_something(project, draw)
    feed_blocks.count_ahead()
    for round_ in range(3):
        used += FeedBlock.objects.filter(project=project).count()
        for name, format in EXPORTS.items():
            for options in OPTIONS:
                if options.keys() <= format.options:
                    since = cursor_at(project=project, change=draw.randrange(last_change(project))).encode()
                    for start in (None, since):
                        export = open_export(project, format=name, since=start, options=options)
                        assert len(list(export.lines)) == export.count, (round_, name, options)
        do_something(project, draw)
    assert used >= 9


def test_a_block_is_used_and_goes_with_what_it_counted() -> None:
    project = make_project()
    rankings = [rank_one(project) for _ in range(9)]
    assert feed_blocks.count_ahead() == 2 and feed_blocks.count_ahead() == 0
    assert open_export(project, format="trl").count == 27
    FeedBlock.objects.update(shapes=[Shape("normal", True, "human", "train", 1, 50, 0, 1, 2, 1)])
    assert open_export(project, format="trl").count == 103  # so they were asked
    revise(rankings[5], [[0], [1, 2]])
    assert list(FeedBlock.objects.values_list("number", flat=True)) == [0]
    withdraw_ranking(ranking=rankings[0])
    assert not FeedBlock.objects.exists()
    assert open_export(project, format="trl").count == 23


def test_an_earlier_window_is_not_told_what_came_later() -> None:
    project = make_project()
    rankings = [rank_one(project) for _ in range(4)]
    mark = last_change(project)
    revise(rankings[0], [[0], [1]])
    feed_blocks.count_ahead()
    assert FeedBlock.objects.get().as_of > mark
    assert Window(project, 0, mark).count("rankings") == 4  # the superseded one stood then
    assert Window(project, 0, last_change(project)).count("rankings") == 4
    assert Window(project, mark, last_change(project)).count("strict_pairs") == 1


@pytest.mark.django_db(transaction=True)
def test_what_is_withdrawn_while_it_is_counted_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project()
    rankings = [rank_one(project) for _ in range(4)]

    def withdraw() -> None:
        try:
            withdraw_ranking(ranking=rankings[1])
        finally:
            connection.close()

    def counted_then_withdrawn(*given: Any, **named: Any) -> list[Shape]:
        found = shapes_of(*given, **named)
        other = threading.Thread(target=withdraw)
        other.start()
        other.join()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(feed_blocks, "shapes_of", counted_then_withdrawn)
        assert feed_blocks.count_ahead() == 0 and not FeedBlock.objects.exists()
    assert Change.objects.filter(kind="withdrawal").count() == 1
    assert feed_blocks.count_ahead() == 1
    assert open_export(project).count == 3 == len(list(open_export(project).lines))
