"""How many requests a token may make."""

import logging
import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from django.test import Client
from rest_framework.test import APIClient

from annotate.services import request_rates
from annotate.services.request_rates import Limit, count_request
from tests.annotate.api.conftest import Cast, ClientFor
from tests.annotate.api.helpers import error_of

ME = "/api/v1/me/"
NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def redis_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_rates, "_away", request_rates._Away())


@pytest.fixture
def three_at_once(settings: Any) -> None:
    """One comes back each minute."""
    settings.API_RATE, settings.API_BURST = 1, 3


def left(answer: Any) -> int:
    found = re.fullmatch(r'"token";r=(\d+);t=\d+', answer["RateLimit"])
    assert found
    return int(found[1])


@pytest.mark.usefixtures("three_at_once")
def test_a_token_that_asks_too_much_is_told_to_wait(cast: Cast, client_for: ClientFor) -> None:
    client = client_for(cast.bob)
    answers = [client.get(ME) for _ in range(3)]
    assert [(one.status_code, left(one)) for one in answers] == [(200, 2), (200, 1), (200, 0)]
    assert {one["RateLimit-Policy"] for one in answers} == {'"token";q=3;w=180'}
    refused = client.get(ME)
    error_of(refused, 429, "throttled")
    assert 1 <= int(refused["Retry-After"]) <= 60 and left(refused) == 0
    assert client_for(cast.bob).get(ME).status_code == 200, "each token has its own"


@pytest.mark.usefixtures("three_at_once")
def test_what_is_refused_counts_too(cast: Cast, client_for: ClientFor) -> None:
    client = client_for(cast.bob, ("annotate",))
    assert [(one.status_code, left(one)) for one in (client.get(ME), client.get("/api/v1/projects/none/"))] == [
        (403, 2),
        (403, 1),
    ]
    assert client.post(ME).status_code == 403
    assert client.get(ME).status_code == 429


@pytest.mark.usefixtures("three_at_once")
def test_people_at_pages_are_not_counted_and_strangers_neither(cast: Cast) -> None:
    browser = Client()
    browser.force_login(cast.bob)
    answers = [browser.get(ME) for _ in range(5)]
    assert {one.status_code for one in answers} == {200} and not any("RateLimit" in one for one in answers)
    assert {APIClient().get(ME).status_code for _ in range(5)} == {401}


def test_without_a_limit_nothing_is_counted(cast: Cast, client_for: ClientFor, settings: Any) -> None:
    settings.API_RATE, settings.API_BURST = 0, 1
    client = client_for(cast.bob)
    answers = [client.get(ME) for _ in range(3)]
    assert {one.status_code for one in answers} == {200} and "RateLimit-Policy" not in answers[-1]


def test_requests_at_the_same_moment_get_no_more_than_there_is(settings: Any) -> None:
    settings.API_RATE, settings.API_BURST = 1, 50
    name = str(uuid.uuid4())
    with ThreadPoolExecutor(16) as pool:
        counts = list(pool.map(lambda _: count_request(name), range(200)))
    assert sum(one is not None and one.allowed for one in counts) == 50
    assert sorted(one.remaining for one in counts if one and one.allowed) == list(range(50))


def test_requests_come_back_with_time(settings: Any) -> None:
    settings.API_RATE, settings.API_BURST = 600, 1
    name = str(uuid.uuid4())
    first, second = count_request(name), count_request(name)
    assert first and second and first.allowed and not second.allowed and second.wait_seconds == 1
    until = time.monotonic() + 30
    while not ((again := count_request(name)) and again.allowed):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_clock_that_was_set_back_holds_nobody_up(settings: Any) -> None:
    settings.API_RATE, settings.API_BURST = 60, 5
    name = str(uuid.uuid4())
    redis.Redis.from_url(settings.REDIS_URL).set(f"plackett:rate:{name}", int((time.time() + 3600) * 1e6))
    found = count_request(name)
    assert found and not found.allowed and found.wait_seconds <= Limit(60, 5).refill_seconds


def test_a_connection_or_a_script_that_redis_has_lost_costs_nothing(settings: Any) -> None:
    settings.API_RATE, settings.API_BURST = 1, 9
    name, server = str(uuid.uuid4()), redis.Redis.from_url(settings.REDIS_URL)
    assert (first := count_request(name)) and first.remaining == 8
    server.client_kill_filter(_id=str(request_rates._link._ask("CLIENT", "ID")))
    server.script_flush()
    assert (second := count_request(name)) and second.remaining == 7


def test_a_late_answer_is_never_read_as_that_of_another_call(settings: Any) -> None:
    settings.API_RATE, settings.API_BURST = 1, 9
    assert count_request(str(uuid.uuid4()))
    with pytest.raises(redis.TimeoutError):
        request_rates._link._ask("BLPOP", str(uuid.uuid4()), 1)
    assert (found := count_request(str(uuid.uuid4()))) and found.remaining == 8


def test_while_redis_is_away_everybody_is_let_through_and_it_is_said_once(
    cast: Cast, client_for: ClientFor, settings: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, settings.REDIS_URL = settings.REDIS_URL, NOWHERE
    monkeypatch.setattr(request_rates, "ASKED_AGAIN_SECONDS", 0.0)
    client = client_for(cast.bob)
    with caplog.at_level(logging.WARNING, logger=request_rates.__name__):
        answers = [client.get(ME) for _ in range(3)]
        assert {one.status_code for one in answers} == {200} and "RateLimit" not in answers[-1]
        settings.REDIS_URL = there
        assert "RateLimit" in client.get(ME)
    assert [("not counted" in line, "again" in line) for line in caplog.messages] == [(True, False), (False, True)]
