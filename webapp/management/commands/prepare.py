"""Between the servers and the web: migrations, message catalogues, static files and the demo, in one process.

One process because loading Django is most of the work when there is nothing to do.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import BaseCommand, CommandError, call_command
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor

from webapp.catalogues import compile_catalogues

OUR_APPS = {"annotate", "training"}


class Command(BaseCommand):
    """`manage.py prepare`: brings database and static files up to date; changes nothing that already is."""

    help = (
        "Applies migrations, compiles message catalogues, collects static files and seeds the demo (unless "
        "PLACKETT_DEMO=0), each only if needed."
    )
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            executor = MigrationExecutor(connection)
        except OperationalError as error:
            raise CommandError(f"Cannot reach the database: {' '.join(str(error).split())}") from None
        refuse_newer_data(executor)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            call_command("migrate", interactive=False)
        for catalogue in compile_catalogues():
            self.stdout.write(f"Compiled the messages in {catalogue.parent.parent.name}.")
        if collect_static(settings.PLACKETT_HOME):
            self.stdout.write("Collected the static files.")
        if settings.PLACKETT_DEMO:
            call_command("seed_demo")


def refuse_newer_data(executor: MigrationExecutor) -> None:
    """Stops if the database has migrations of ours that this code does not know.

    Raises:
        CommandError: with one of them.
    """
    unknown = set(executor.loader.applied_migrations) - set(executor.loader.disk_migrations)
    ours = sorted(f"{app}.{name}" for app, name in unknown if app in OUR_APPS)
    if ours:
        raise CommandError(f"The database was made by a newer Plackett (it has {ours[-1]}): update Plackett.")


def collect_static(home: Path) -> bool:
    """Runs collectstatic if a static file or the storage changed since the last time; says whether it did."""
    stamp = home / "static.stamp"
    state = _static_state()
    if stamp.exists() and stamp.read_text() == state:
        return False
    call_command("collectstatic", interactive=False, clear=Path(settings.STATIC_ROOT).exists(), verbosity=0)
    stamp.write_text(state)
    return True


def _static_state() -> str:
    digest = hashlib.sha256(f"{settings.STORAGES['staticfiles']} {settings.STATIC_ROOT}".encode())
    for finder in get_finders():
        for path, storage in finder.list([]):
            status = os.stat(storage.path(path))
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
