"""/healthz and /readyz."""

from typing import Any

from django.db import connection
from django.test import Client


def test_the_process_is_alive() -> None:
    answer = Client().get("/healthz")
    assert (answer.status_code, answer.content) == (200, b"ok\n")


def test_alive_asks_neither_database_nor_session(db: None, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        Client().get("/healthz")


def test_ready_when_database_and_broker_answer(db: None) -> None:
    answer = Client().get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "database": "ok", "broker": "ok"})
    assert "no-store" in answer["Cache-Control"]


def test_not_ready_without_the_broker(db: None, settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    answer = Client().get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "database": "ok", "broker": "unreachable"})


def test_not_ready_without_the_database(transactional_db: None) -> None:
    name = connection.settings_dict["NAME"]
    connection.close()
    connection.settings_dict["NAME"] = "no_such_database"
    try:
        answer = Client().get("/readyz")
        assert (answer.status_code, answer.json()["database"]) == (503, "unreachable")
    finally:
        connection.close()
        connection.settings_dict["NAME"] = name
