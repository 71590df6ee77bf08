"""One Postgres and one Valkey for the whole run, shared by the parallel workers; the cast; nothing is mocked."""

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

import django
import pytest
from django.db import connection
from django.test import TransactionTestCase
from django.utils import translation

from tests.compiled import compiled_once
from tests.emptying import empty_after
from tests.order import long_first
from tests.servers import start_test_servers
from webapp.catalogues import compile_catalogues

# Collecting five thousand tests, and what they import, makes a million objects that stay. Looking through them for
# garbage took a third of that time, and a sixth of the tests' after it.
gc.disable()

_stop: list[Callable[[], None]] = []
SHARED_DATA = Path(os.environ.get("PLACKETT_SHARED_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def _home() -> None:
    """A folder of this run's own, gone with it; xdist's workers inherit it."""
    if "PLACKETT_HOME" not in os.environ:
        os.environ["PLACKETT_HOME"] = home = tempfile.mkdtemp(prefix="plackett-test-home-")
        atexit.register(shutil.rmtree, home, ignore_errors=True)


def _servers() -> None:
    """Starts the servers once, in the controlling process; xdist's workers inherit the addresses."""
    if os.environ.get("PYTEST_XDIST_WORKER") or os.environ.get("DATABASE_URL"):
        return
    postgres_url, redis_url, stop = start_test_servers()
    os.environ["DATABASE_URL"], os.environ["REDIS_URL"] = postgres_url, redis_url
    _stop.append(stop)


# Settings are read once, so the servers must be up and the folder chosen before Django is. (Were the settings module
# named in pyproject.toml, pytest-django would read it before this file.)
_home()
os.environ.setdefault("PLACKETT_CACHE", os.path.join(os.environ["PLACKETT_HOME"], "cache"))
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
compile_catalogues()
_servers()
django.setup()
TransactionTestCase._fixture_teardown = empty_after  # type: ignore[method-assign]


def pytest_configure(config: pytest.Config) -> None:
    """Migrates once, in the controlling process: the database of each parallel worker is a copy of that one."""
    if _stop and config.getoption("numprocesses", None) and not config.option.collectonly:
        os.environ["PLACKETT_TEST_TEMPLATE"] = connection.creation.create_test_db(verbosity=0, serialize=False)
        connection.close()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    with compiled_once(Path(__file__).parent, Path(os.environ["PLACKETT_HOME"], "collecting")):
        return (yield)


def pytest_unconfigure() -> None:
    for stop in _stop:
        stop()


@pytest.hookimpl(trylast=True)  # after pytest-randomly
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    items[:] = long_first(items, lambda item: any(map(item.get_closest_marker, ("slow", "stack"))), processes)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def in_the_default_language() -> None:
    """A request of an earlier test leaves its language in the thread; in a server the next request sets its own."""
    translation.deactivate()
