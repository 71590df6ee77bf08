"""Forgets old idempotency keys."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotate.services.idempotency import KEPT_DAYS, forget_keys


class Command(BaseCommand):
    help = "Delete idempotency keys that are too old for anybody to repeat their request."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--days", type=int, default=KEPT_DAYS, help=f"Keep keys that are younger than this; {KEPT_DAYS} if absent."
        )
        parser.add_argument("--dry-run", action="store_true", help="Count them and delete nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["days"] < 1:
            raise CommandError("--days must be at least 1.")
        count = forget_keys(days=options["days"], dry_run=options["dry_run"])
        would = "would be " if options["dry_run"] else ""
        self.stdout.write(f"Keys older than {options['days']} days: {count:,} {would}deleted")
