"""Starts a new history after a restore."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from annotate.selectors.cursors import current_epoch
from annotate.services.epochs import start_epoch


class Command(BaseCommand):
    help = (
        "Run this after restoring the database from a backup. Export cursors given out before are refused from then "
        "on (409, unknown_epoch), so that no reader silently misses what happened after the backup."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Say which epoch would end and change nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        before = current_epoch()
        if options["dry_run"]:
            self.stdout.write(f"The epoch {before} would end.")
            return
        self.stdout.write(f"Epoch {before} has ended; {start_epoch()} has begun.")
