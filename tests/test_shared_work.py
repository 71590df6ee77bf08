"""What the parallel processes share: tests compiled by one of them, a database emptied with little work."""

import fcntl
import sys
from pathlib import Path
from typing import cast

import pytest
from django.db import connection
from django.test import TransactionTestCase

from tests.annotate.busy import busy_project
from tests.compiled import compiled_once
from tests.emptying import KEPT, empty_after


def is_held(lock: Path) -> bool:
    with lock.open("a") as another:
        try:
            fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_others_wait_only_until_the_tests_have_been_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    lock = tmp_path / "lock"
    with compiled_once(tmp_path, lock):
        assert is_held(lock)
        (tmp_path / "__pycache__").mkdir()
        (tmp_path / "__pycache__" / "test_one.cpython-311-pytest-9.pyc").touch()
    with compiled_once(tmp_path, lock):
        assert not is_held(lock)


def test_nobody_waits_where_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with compiled_once(tmp_path, tmp_path / "lock"):
        assert not is_held(tmp_path / "lock")


@pytest.mark.django_db(transaction=True)
def test_nothing_is_left_in_any_table_whatever_its_triggers_say() -> None:
    busy_project()
    assert "annotate_ranking" in filled()
    empty_after(cast(TransactionTestCase, None))
    assert filled() == KEPT


def filled() -> set[str]:
    with connection.cursor() as cursor:
        names = connection.introspection.django_table_names(only_existing=True, include_views=False)
        cursor.execute(" UNION ALL ".join(f"(SELECT '{name}' FROM {name} LIMIT 1)" for name in names))
        return {name for (name,) in cursor.fetchall()}
