"""Puts a backup back."""

import os
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from tqdm import tqdm

from webapp.backups.manifest import BackupError
from webapp.backups.restoring import restore_backup


class Command(BaseCommand):
    help = (
        "Put a backup in place: its hashes are checked first, and the counts of all tables at the end. Web, workers "
        "and beat have to be stopped. Export cursors given out before are refused from then on (409, unknown_epoch), "
        "so that no reader silently misses what happened after the backup."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", help="A folder that the command backup made.")
        parser.add_argument("--wipe", action="store_true", help="Delete the data that is there, all of it, first.")
        parser.add_argument(
            "--without-objects",
            action="store_true",
            help="Go on although objects that the backup names are not in the bucket: what they hold is lost.",
        )
        parser.add_argument(
            "--same-history",
            action="store_true",
            help="Nothing was written after the backup (a move to another machine): cursors stay good.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        os.umask(0o077)
        try:
            with tqdm(unit="B", unit_scale=True, disable=None) as bar:
                put_back = restore_backup(
                    Path(options["folder"]).absolute(),
                    wipe=options["wipe"],
                    same_history=options["same_history"],
                    without_objects=options["without_objects"],
                    say=self.stdout.write,
                    progress=bar.update,
                )
        except (BackupError, OSError) as error:
            raise CommandError(str(error)) from None
        rows = sum(put_back.tables.values())
        self.stdout.write(f"{rows:,} rows and {len(put_back.files):,} files, as on {put_back.created_at}.")
