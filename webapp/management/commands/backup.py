"""Makes a backup of everything."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from tqdm import tqdm

from webapp.backups.making import make_backup
from webapp.backups.manifest import BackupError


class Command(BaseCommand):
    help = (
        "Write the database and the files that it names into a new folder, with a manifest of counts and hashes. "
        "Everything may go on meanwhile. The folder holds people's texts: keep it as safe as the data itself."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", nargs="?", help="A folder to be made; PLACKETT_HOME/backups/TIME if absent.")
        parser.add_argument(
            "--no-checkpoints",
            action="store_true",
            help="Leave out the checkpoints of runs: much smaller, and a run that had not finished starts over.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        os.umask(0o077)
        now = datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S")
        folder = Path(options["folder"] or settings.PLACKETT_HOME / "backups" / now).absolute()
        try:
            with tqdm(unit="B", unit_scale=True, disable=None) as bar:
                made = make_backup(
                    folder, checkpoints=not options["no_checkpoints"], say=self.stdout.write, progress=bar.update
                )
        except BackupError as error:
            raise CommandError(str(error)) from None
        rows = sum(made.tables.values())
        self.stdout.write(f"{rows:,} rows and {len(made.files):,} files, {made.size_bytes:,} bytes: {folder}")
        if made.vanished:
            self.stdout.write(f"{len(made.vanished):,} files were deleted meanwhile and are not in it.")
        if made.store:
            size = sum(one.size_bytes for one in made.objects)
            self.stdout.write(
                f"Snapshots, runs and models are in {made.store} and NOT in this backup: it names "
                f"{len(made.objects):,} objects there, {size:,} bytes, with their hashes. Keep them by that bucket's "
                "own versions or copies."
            )
        elif not made.artifacts_included:
            self.stdout.write("The artifact store is no folder and is not in it: it needs a backup of its own.")
