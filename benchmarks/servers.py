"""A throw-away Postgres and Valkey for benchmarks that need a database, unless DATABASE_URL names one."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import django


@contextmanager
def django_on_scratch_servers() -> Iterator[None]:
    """Sets Django up on an empty, migrated database that is gone afterwards."""
    from tests.servers import start_test_servers

    postgres_url, redis_url, stop = start_test_servers()
    os.environ.update(
        DATABASE_URL=postgres_url,
        REDIS_URL=redis_url,
        PLACKETT_HOME=tempfile.mkdtemp(prefix="plackett-bench-"),
        DJANGO_SETTINGS_MODULE="tests.settings",
    )
    try:
        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        yield
    finally:
        stop()
