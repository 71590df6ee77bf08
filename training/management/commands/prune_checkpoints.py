"""`manage.py prune_checkpoints`: removes the checkpoints that the rules of retention keep no longer, as beat does."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from training.services.retention import prune_checkpoints


class Command(BaseCommand):
    help = "Remove the checkpoints of runs that are over which the rules of retention keep no longer."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="say what would be removed, remove nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        found = prune_checkpoints(dry_run=options["dry_run"])
        for one in found:
            steps = ", ".join(map(str, one.steps))
            self.stdout.write(f"{one.run}, {one.run.state}: steps {steps}, {one.size_bytes:,} bytes")
        count, size = sum(len(one.steps) for one in found), sum(one.size_bytes for one in found)
        told = f"{count:,} checkpoints of {len(found):,} runs, {size:,} bytes"
        dry = options["dry_run"]
        self.stdout.write(f"Would remove {told}. Nothing was removed (dry run)." if dry else f"Removed {told}.")
