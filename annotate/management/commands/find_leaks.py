"""Looks again for responses that give away their maker."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from annotate.management.progress import bar, project_of
from annotate.models import Response
from annotate.services.leaks import find_leaks


class Command(BaseCommand):
    help = "Read a project's responses again and mark those that give away their maker, for its managers."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--dry-run", action="store_true", help="Say what would change and write nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        project = project_of(options["project"])
        total = Response.objects.filter(prompt__project=project, withdrawn_at=None).count()
        quiet = options["verbosity"] == 0
        with bar(description="Reading", total=total, unit=" responses", quiet=quiet) as progress:
            counts = find_leaks(project=project, dry_run=options["dry_run"], progress=progress.update)
        would = "would be " if options["dry_run"] else ""
        self.stdout.write(
            f"{counts.read:,} responses read: {counts.new:,} leaks {would}added, {counts.known:,} known before, "
            f"{counts.gone:,} {would}removed"
        )
