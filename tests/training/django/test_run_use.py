"""What a run took: device hours from its attempts, their price, how busy its machines were, who trained it together."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection

from annotate.models import Snapshot
from tests.training.django.helpers import RunCast, claim, queue_run
from tests.training.django.test_run_api import client_of
from tests.training.django.test_run_pages import page_of
from tests.training.django.test_workers import GIB, H200, MACHINE
from training.models import Run, RunMember, RunUse
from training.selectors import runs_for
from training.selectors_use import cost_of, device_hours, use_of, with_time_worked
from training.services.claims import claim_run, give_back, mark_running, succeed
from training.services.members import join_run, leave_run, open_membership
from training.services.use import FIRST_SECONDS, MOST_SPANS, record_use
from training.services.workers import Identity, announce_worker
from webapp import env

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("runs_root")]


def ago(run: Run, seconds: float) -> None:
    """Lets the run have begun so long ago, by the database's clock."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE training_run SET started_at = now() - make_interval(secs => %s) WHERE id = %s", [seconds, run.pk]
        )


def lasted(number: int, seconds: float) -> None:
    """Lets the attempt, which goes on, have begun so long ago."""
    with connection.cursor() as cursor:
        words = "UPDATE training_runattempt SET started_at = now() - make_interval(secs => %s) WHERE number = %s"
        cursor.execute(words, [seconds, number])


# --- device hours ----------------------------------------------------------------------------------------------------


def test_device_hours_are_of_all_attempts_times_processes_times_machines(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    assert device_hours(run) == 0
    first = claim()
    lasted(1, 1800)
    give_back(first, lost=True, reason="gone")
    again = claim()
    lasted(2, 3600)  # it goes on: until now
    assert device_hours(run) == pytest.approx(1.5, abs=1e-3)
    mark_running(again, process_id=1, process_started_at=1.0)
    succeed(again, model=None, step=1, report={})
    assert device_hours(run) == pytest.approx(1.5, abs=1e-3)
    run.processes, run.nodes = 4, 2
    assert device_hours(run) == pytest.approx(12, abs=1e-2)


def test_a_list_asks_the_database_once(snapshot: Snapshot, people: RunCast, django_assert_num_queries: Any) -> None:
    for _ in range(3):
        queue_run(snapshot)
    claim()
    lasted(1, 7200)
    with django_assert_num_queries(1):
        assert sorted(round(device_hours(one), 2) for one in with_time_worked(runs_for(people.sue))) == [0, 0, 2]


def test_hours_and_cost_stand_on_the_page_in_the_list_and_in_the_api(
    snapshot: Snapshot, people: RunCast, settings: Any
) -> None:
    run = queue_run(snapshot)
    claim()
    lasted(1, 6120)
    settings.DEVICE_HOUR_PRICE = None
    client, space = page_of(people.alice), "\N{NO-BREAK SPACE}"
    for address in (f"/runs/{run.pk}/", "/runs/"):
        html = client.get(address).content.decode()
        assert f"1.7{space}h" in html and "EUR" not in html
    answer = client_of(people.alice).get(f"/api/v1/runs/{run.pk}/").json()
    assert answer["device_hours"] == pytest.approx(1.7, abs=1e-2) and answer["cost"] is None
    settings.DEVICE_HOUR_PRICE = (Decimal("2.50"), "EUR")
    for address in (f"/runs/{run.pk}/", "/runs/"):
        assert f"4.25{space}EUR" in client.get(address).content.decode()
    assert client_of(people.alice).get("/api/v1/runs/").json()["results"][0]["cost"] == {
        "amount": "4.25",
        "currency": "EUR",
    }
    assert cost_of(2.0) is not None


@pytest.mark.parametrize("value", ["2.50", "EUR 2.50", "-1 EUR", "2,50 EUR", "2.50 euros", "1e3 EUR"])
def test_a_price_that_makes_no_sense_stops_the_start(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("PLACKETT_DEVICE_HOUR_PRICE", value)
    with pytest.raises(env.BadSetting, match="like 2.50 EUR"):
        env.price("PLACKETT_DEVICE_HOUR_PRICE")


def test_a_price_is_an_amount_and_a_currency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACKETT_DEVICE_HOUR_PRICE", " 2.50 EUR")
    assert env.price("PLACKETT_DEVICE_HOUR_PRICE") == (Decimal("2.50"), "EUR")
    monkeypatch.delenv("PLACKETT_DEVICE_HOUR_PRICE")
    assert env.price("PLACKETT_DEVICE_HOUR_PRICE") is None


# --- machines --------------------------------------------------------------------------------------------------------


def test_readings_of_a_span_become_one_and_a_gap_stays_a_gap(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    record_use("gpu@a", machine=MACHINE)
    assert not RunUse.objects.exists()  # it holds nothing
    claim(worker="gpu@a")
    for seconds, busy, used in ((1, 0.8, 10), (5, 0.4, 20), (15, 0.5, 30), (200, None, 30)):
        ago(run, seconds)
        machine = replace(MACHINE, memory_used_bytes=used * GIB, gpus=(replace(H200, busy=busy),))
        record_use("gpu@a", machine=machine)
        record_use("gpu@b", machine=machine)  # another worker's machine is none of the run's
    lines = {line.figure: line for line in use_of(run)}
    assert set(lines) == {"gpu_busy", "gpu_memory", "memory"}
    assert lines["gpu_busy"].name == "0: NVIDIA H200"
    assert lines["gpu_busy"].points == [[0.083, 0.6], [0.25, 0.5], [0.333, None], [3.417, None]]
    assert lines["memory"].points == [[0.083, 15.0], [0.25, 30.0], [0.333, None], [3.417, 30.0]]
    assert (lines["memory"].whole, lines["gpu_memory"].whole) == (128.0, 140.0)


def test_a_long_run_takes_no_more_room(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    claim(worker="gpu@a")
    RunUse.objects.bulk_create(
        RunUse(
            run=run,
            worker="gpu@a",
            number=number,
            seconds=FIRST_SECONDS,
            memory_bytes=8,
            memory_used_bytes=number,
            gpus=[],
        )
        for number in range(MOST_SPANS)
    )
    ago(run, MOST_SPANS * FIRST_SECONDS + 1)
    record_use("gpu@a", machine=replace(MACHINE, gpus=()))
    spans = list(RunUse.objects.order_by("number"))
    assert len(spans) == MOST_SPANS // 2 + 1 and {span.seconds for span in spans} == {2 * FIRST_SECONDS}
    assert (spans[0].memory_used_bytes, spans[0].readings) == (0, 2)  # of 0 and 1: half to even
    assert spans[3].memory_used_bytes == round((6 + 7) / 2)
    assert (spans[-1].number, spans[-1].readings) == (MOST_SPANS // 2, 1)


def test_every_machine_of_a_run_tells_its_own(snapshot: Snapshot, people: RunCast) -> None:
    run = queue_run(snapshot, nodes=2, processes=3)
    for name in ("one", "two"):
        announce_worker(Identity(name, "h", 1, ("gpu",), "", processes=3), machine=MACHINE, up_seconds=9)
    held = claim_run(queues=["gpu"], worker="one", host="h1", processes=3)
    assert held is not None
    open_membership(held, worker="one", host="h1", address="10.0.0.1")
    second = join_run(queues=["gpu"], worker="two", host="h2", address="10.0.0.2", processes=3)
    assert second is not None
    ago(run, 5)
    record_use("one", machine=MACHINE)
    record_use("two", machine=MACHINE)
    assert sorted(line.name for line in use_of(run) if line.figure == "memory") == ["one", "two"]
    assert "0: NVIDIA H200 · two" in {line.name for line in use_of(run)}

    html = page_of(people.alice).get(f"/runs/{run.pk}/").content.decode()
    assert "Machines that train it together" in html and "<td>two</td><td>h2</td>" in html and "at work" in html
    members = client_of(people.alice).get(f"/api/v1/runs/{run.pk}/").json()["members"]
    assert [(one["rank"], one["host"], one["processes"], one["outcome"]) for one in members] == [
        (0, "h1", 3, ""),
        (1, "h2", 3, ""),
    ]
    leave_run(second, outcome=RunMember.Outcome.LOST)
    assert "<td>lost</td>" in page_of(people.alice).get(f"/runs/{run.pk}/live/").content.decode()


def test_the_address_and_the_api_tell_the_same(snapshot: Snapshot, people: RunCast) -> None:
    run = queue_run(snapshot)
    claim(worker="gpu@a")
    record_use("gpu@a", machine=MACHINE)
    page = page_of(people.alice).get(f"/runs/{run.pk}/use/").json()
    api = client_of(people.alice).get(f"/api/v1/runs/{run.pk}/use/").json()
    assert page["lines"] == api["lines"] and len(api["lines"]) == 3
    assert (page["finished"], api["state"]) == (False, "starting")
