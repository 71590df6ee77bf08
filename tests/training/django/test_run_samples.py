"""Samples: how samples.jsonl reaches the database within bounds, what is cut on resume, and who may read it where."""

import json
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from annotate.models import Snapshot
from tests.training.django.helpers import RunCast, claim, queue_run
from tests.training.django.test_run_api import client_of
from tests.training.django.test_run_mirror import append, line, say
from tests.training.django.test_run_pages import page_of
from training.models import Run, RunSample
from training.runner.mirror import Mirror
from training.runner.sample_rows import ROWS_A_STEP, TEXT_CHARACTERS
from training.selectors_samples import samples_of
from training.services import samples
from training.services.claims import Claim, StaleAttempt, give_back, mark_running, succeed
from training.services.metrics import begin_attempt
from training.services.samples import Sample, record_samples

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("runs_root")]
ASKED = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Tea?"}]


@pytest.fixture
def run(snapshot: Snapshot) -> Run:
    return queue_run(snapshot, kind="ppo")


@pytest.fixture
def held(run: Run) -> Claim:
    found = claim()
    mark_running(found, process_id=1, process_started_at=1.0)
    return found


def said(step: int, response: str = "Yes.", **values: Any) -> str:
    row = {"step": step, "prompt": ASKED, "response": response, "score": step / 10}
    return json.dumps(row | values) + "\n"


def tell(folder: Path, text: str) -> None:
    with (folder / "samples.jsonl").open("a") as file:
        file.write(text)


def rows(run: Run) -> list[tuple[int, int, int, str]]:
    found = RunSample.objects.filter(run=run).order_by("step", "place")
    return list(found.values_list("attempt", "step", "place", "response"))


def test_samples_arrive_with_the_steps_and_keep_their_places(run: Run, held: Claim, tmp_path: Path) -> None:
    mirror = Mirror(held, tmp_path)
    say(tmp_path, (1, 0))
    tell(tmp_path, said(0, "a") + said(0, "b"))
    mirror.update()
    assert rows(run) == []  # of an earlier attempt, perhaps: nothing has been measured yet
    append(tmp_path, line(1))
    tell(tmp_path, said(2, "c"))
    mirror.update()
    tell(tmp_path, said(2, "d"))
    append(tmp_path, line(2))
    mirror.update()
    assert rows(run) == [(1, 0, 0, "a"), (1, 0, 1, "b"), (1, 2, 0, "c"), (1, 2, 1, "d")]


def test_what_is_said_after_the_last_step_arrives_too(run: Run, held: Claim, tmp_path: Path) -> None:
    mirror = Mirror(held, tmp_path)
    say(tmp_path, (1, 0))
    append(tmp_path, line(1))
    mirror.update()
    tell(tmp_path, said(1, "the end"))
    mirror.finish()
    assert rows(run) == [(1, 1, 0, "the end")]


def test_a_resumed_run_loses_what_it_said_beyond_its_checkpoint(run: Run, held: Claim, tmp_path: Path) -> None:
    begin_attempt(held, from_step=0, total_steps=9)
    record_samples(held, rows=[Sample(step, 0, [], response="old") for step in (0, 2, 4)], from_step=0)
    tell(tmp_path, said(0, "old") + said(2, "old") + said(4, "old"))
    give_back(held, lost=True, reason="gone")
    again = claim()
    mirror = Mirror(again, tmp_path)
    say(tmp_path, (1, 2))
    mirror.update()  # the trainer has not cut the file yet
    assert rows(run) == [(1, 0, 0, "old"), (1, 2, 0, "old")]
    (tmp_path / "samples.jsonl").write_text(said(0, "old") + said(2, "old") + said(4, "new"))
    append(tmp_path, line(3))
    mirror.update()
    assert rows(run) == [(1, 0, 0, "old"), (1, 2, 0, "old"), (2, 4, 0, "new")]


def test_texts_have_bounds_and_what_is_no_row_is_passed_over(run: Run, held: Claim, tmp_path: Path) -> None:
    mirror = Mirror(held, tmp_path)
    say(tmp_path, (1, 0))
    append(tmp_path, line(1))
    odd = 'no json\n[1]\n{"step": -1}\n{"step": 1e99}\n' + said(
        1, "\0" * 5, prompt="x", score="high", ended=1, rewards=[1]
    )
    long = said(1, "x" * (TEXT_CHARACTERS + 1), rewards={"judge": 1.5, "bad": None}, thinking="hm", ended=False)
    tell(tmp_path, odd + long + said(1) * ROWS_A_STEP)
    mirror.update()
    first, second, *others = RunSample.objects.filter(run=run).order_by("place")
    assert (first.response, first.prompt, first.score, first.ended, first.scores) == (
        "\N{REPLACEMENT CHARACTER}" * 5,
        [],
        None,
        None,
        {},
    )
    assert (len(second.response), second.shortened, second.scores) == (TEXT_CHARACTERS, True, {"judge": 1.5})
    assert (second.thinking, second.ended, second.prompt) == ("hm", False, ASKED)
    assert len(others) == ROWS_A_STEP - 2


def test_of_many_steps_the_first_and_the_newest_are_kept(
    run: Run, held: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "MOST_ROWS", 4)
    record_samples(held, rows=[Sample(step, place, []) for step in (0, 1) for place in (0, 1)], from_step=0)
    record_samples(held, rows=[Sample(step, place, []) for step in (2, 3) for place in (0, 1)], from_step=0)
    assert [(step, place) for _, step, place, _ in rows(run)] == [(0, 0), (0, 1), (2, 0), (2, 1), (3, 0), (3, 1)]


def test_a_withdrawal_takes_the_samples_and_lets_no_more_in(snapshot: Snapshot, run: Run, held: Claim) -> None:
    record_samples(held, rows=[Sample(1, 0, [], response="secret")], from_step=0)
    Snapshot.objects.filter(pk=snapshot.pk).update(state="withdrawn", withdrawn_at="2026-01-01T00:00:00Z")
    assert rows(run) == []
    record_samples(held, rows=[Sample(2, 0, [], response="secret")], from_step=0)
    assert rows(run) == []
    with pytest.raises(IntegrityError, match="withdrawn"), transaction.atomic():
        RunSample.objects.create(run=run, attempt=1, step=3, place=0, prompt=[])


def test_only_the_attempt_that_holds_the_run_writes(run: Run, held: Claim) -> None:
    give_back(held, lost=False, reason="")
    with pytest.raises(StaleAttempt):
        record_samples(held, rows=[Sample(1, 0, [])], from_step=0)
    claim()
    values = (
        "INSERT INTO training_runsample (run_id, attempt, step, place, prompt, response, scores, shortened) VALUES "
    )
    for attempt, refusal in ((1, "attempt that holds"), (9, "attempt that holds")):
        with pytest.raises(IntegrityError, match=refusal), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"{values} ({run.pk}, {attempt}, 1, 0, '[]', '', '{{}}', false)")


def test_before_training_is_told_where_a_row_does_not_say_it(run: Run, held: Claim) -> None:
    rows = [Sample(0, 0, [], response="raw", score=0.1), Sample(8, 0, [], response="cooked", score=0.9)]
    record_samples(held, rows=rows, from_step=0)
    last, first = samples_of(run, steps=5).steps
    assert (last.rows[0].before, last.rows[0].before_score) == ("raw", 0.1)
    assert first.rows[0].before is None


def test_the_page_shows_the_newest_steps_and_older_ones_on_demand(run: Run, held: Claim, people: RunCast) -> None:
    told = [
        Sample(step, 0, ASKED, before="<b>no</b>", response=f"answer of {step}", thinking="let me see", score=0.5,
               scores={"judge": 0.25, "length": 0.75}, ended=False)
        for step in (0, 10, 20, 30)
    ]  # fmt: skip
    record_samples(held, rows=told, from_step=0)
    client = page_of(people.alice)
    html = unescape(client.get(f"/runs/{run.pk}/").content.decode())
    assert html.index("answer of 30") < html.index("answer of 20") and "answer of 10" not in html
    assert '<details class="thinking"><summary class="soft small">Thinking</summary>' in html
    assert "judge 0.25" in html and "cut off" in html and "1 message before" in html
    assert "&lt;b&gt;no" in client.get(f"/runs/{run.pk}/").content.decode()
    older = client.get(f"/runs/{run.pk}/samples/?samples=6")
    assert "answer of 0" in older.content.decode()
    seen = older.content.decode().split("seen=")[1][:16]
    assert client.get(f"/runs/{run.pk}/samples/?samples=6&seen={seen}").status_code == 204
    succeed(held, model=None, step=30, report={})
    assert 'hx-trigger="every 5s"' not in client.get(f"/runs/{run.pk}/samples/").content.decode()


def test_the_api_goes_back_step_by_step(run: Run, held: Claim, people: RunCast) -> None:
    record_samples(held, rows=[Sample(step, 0, ASKED, response=str(step)) for step in (0, 5, 9)], from_step=0)
    client, address = client_of(people.alice), f"/api/v1/runs/{run.pk}/samples/"
    newest = client.get(address, {"steps": 2}).json()
    assert [(row["step"], row["response"], row["before"]) for row in newest["samples"]] == [
        (9, "9", "0"),
        (5, "5", "0"),
    ]
    assert newest["more"] is True
    rest = client.get(address, {"steps": 2, "before_step": 5}).json()
    assert [row["step"] for row in rest["samples"]] == [0] and rest["more"] is False
    assert client.get(address, {"steps": 0}).status_code == 400


@pytest.mark.parametrize("what", ["samples", "use"])
def test_they_are_for_engineers_of_the_project(run: Run, held: Claim, people: RunCast, what: str) -> None:
    record_samples(held, rows=[Sample(1, 0, ASKED, response="a secret")], from_step=0)
    for user, status in ((people.charlie, 404), (people.bob, 403), (None, 401), (people.alice, 200)):
        for answer in (
            page_of(user).get(f"/runs/{run.pk}/{what}/"),
            client_of(user).get(f"/api/v1/runs/{run.pk}/{what}/"),
        ):
            assert answer.status_code == status
            assert ("a secret" in answer.content.decode()) == (status == 200 and what == "samples")
