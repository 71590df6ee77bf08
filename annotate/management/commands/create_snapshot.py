"""Freezes a snapshot."""

from typing import Any

from django.core.files.storage import default_storage
from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotate.errors import Refused
from annotate.management.progress import bar, project_of
from annotate.models import RankingTask, Split, User
from annotate.services.snapshots import freeze_snapshot, preview_snapshot

_LISTS = ("kinds", "annotator_kinds", "splits")


class Command(BaseCommand):
    help = "Freeze a project's rankings and demonstrations into a file that runs can train from."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--name", required=True)
        parser.add_argument("--kinds", nargs="+", choices=RankingTask.Kind.values, help="Kinds of task; all if absent.")
        parser.add_argument(
            "--annotator-kinds",
            nargs="+",
            choices=User.Kind.values,
            help="Kinds of annotator; all but machine if absent.",
        )
        parser.add_argument("--splits", nargs="+", choices=Split.values, help="All if absent.")
        parser.add_argument("--uncounted", action="store_true", help="Also rankings beyond their task's overlap.")
        parser.add_argument("--reviewed", action="store_true", help="Only rankings that were accepted in review.")
        parser.add_argument("--no-demonstrations", action="store_true", help="Rankings only.")
        parser.add_argument("--prompts", action="store_true", help="Also prompts that have no responses.")
        parser.add_argument("--dry-run", action="store_true", help="Say what it would hold and write nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        project = project_of(options["project"])
        filters: dict[str, Any] = {name: options[name] for name in _LISTS if options[name]}
        filters |= {
            "counted": not options["uncounted"],
            "reviewed": options["reviewed"],
            "demonstrations": not options["no_demonstrations"],
            "prompts": options["prompts"],
        }
        try:
            with bar(description="Freezing", unit=" lines", quiet=options["verbosity"] == 0) as progress:
                if options["dry_run"]:
                    manifest = preview_snapshot(project=project, filters=filters, progress=progress.update)
                    self._say("would hold", manifest["counts"], manifest["sha256"])
                    return
                snapshot = freeze_snapshot(
                    project=project, name=options["name"], filters=filters, progress=progress.update
                )
        except Refused as refused:
            raise CommandError(" ".join([refused.message, *refused.fields.values()])) from None
        self._say(f"{snapshot.pk} {snapshot.name!r} holds", snapshot.counts, snapshot.sha256)
        try:
            self.stdout.write(f"  file {default_storage.path(snapshot.file)}")
        except NotImplementedError:  # a store without paths
            self.stdout.write(f"  file {snapshot.file} in the artifact store")

    def _say(self, what: str, counts: dict[str, Any], sha256: str) -> None:
        self.stdout.write(
            f"Snapshot {what} {counts['lines']:,} lines: {counts['rankings']:,} rankings with {counts['pairs']:,} "
            f"pairs, {counts['demonstrations']:,} demonstrations, {counts['prompts']:,} prompts"
        )
        self.stdout.write("  " + ", ".join(f"{name} {count:,}" for name, count in counts["lines_by_split"].items()))
        self.stdout.write(f"  sha256 {sha256}")
