"""Makes the demo project."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotate.services.demo import missing_parts, seed_demo


class Command(BaseCommand):
    help = (
        "Make the demo project with its accounts, and write their log-ins to demo-logins.json in PLACKETT_HOME. What "
        "is there already stays as it is."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Say what would be made and make nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.PLACKETT_DEMO:
            raise CommandError("PLACKETT_DEMO is 0: no demo project and no demo account is made.")
        if options["dry_run"]:
            for part in missing_parts(home=settings.PLACKETT_HOME):
                self.stdout.write(f"Would make {part}.")
            return
        for line in seed_demo(home=settings.PLACKETT_HOME):
            self.stdout.write(line)
