"""Imports files into a project."""

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from annotate.errors import Refused
from annotate.interchange import FORMATS
from annotate.interchange.mapping import MappingError, mapping_from
from annotate.interchange.records import FileError
from annotate.management.progress import bar, project_of, say_report
from annotate.models import Project, RankingTask
from annotate.services.imports import ImportReport, StrictImportRefused, check_files, import_files
from annotate.services.projects import create_project


class Command(BaseCommand):
    help = (
        "Import prompts, responses and rankings. Doing it again changes nothing. A bad record is skipped and reported; "
        "a file that cannot be read to its end changes nothing, and neither do the other files named with it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("files", nargs="+", metavar="FILE", help="As the format says; JSON and CSV may be gzip.")
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--format", required=True, choices=list(FORMATS))
        parser.add_argument(
            "--map",
            action="append",
            default=[],
            metavar="COLUMN=FIELD",
            help="Which column (or name) of the file is which field, for csv, parquet, label-studio and argilla. "
            "Repeatable; - as the field leaves a column out.",
        )
        parser.add_argument("--create-project", action="store_true", help="Make the project if there is none.")
        parser.add_argument(
            "--overlap",
            type=int,
            help="How many people shall rank each new task, 0 to 50. Without: the project's overlap for tasks that "
            "come without a ranking, 0 for those that bring one.",
        )
        parser.add_argument(
            "--priority", type=int, default=RankingTask.Priority.NORMAL, help="0 urgent, 1 high, 2 normal, 3 low."
        )
        parser.add_argument("--strict", action="store_true", help="Any fault, conflicts too, refuses everything.")
        parser.add_argument("--dry-run", action="store_true", help="Say what would happen and change nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            reports = self._import(options)
        except FileError as error:
            raise CommandError(f"{error}. Nothing was changed.") from None
        except StrictImportRefused as refused:
            say_report(self.stderr, "strict", refused.report)
            raise CommandError(refused.message) from None
        except Refused as refused:
            raise CommandError(refused.message) from None
        joined = ", ".join(options["files"])
        names = options["files"] if len(reports) == len(options["files"]) else [joined]
        for name, report in zip(names, reports, strict=True):
            say_report(self.stdout, name, report)

    def _import(self, options: dict[str, Any]) -> list[ImportReport]:
        slug, names = options["project"], ("files", "format", "overlap", "priority", "strict")
        chosen = {name: options[name] for name in names} | {"mapping": _mapping(options["map"])}
        with bar(description="Importing", quiet=options["verbosity"] == 0) as progress:
            chosen["progress"] = progress.update
            if not options["create_project"] or Project.objects.filter(slug=slug).exists():
                return import_files(project=project_of(slug), dry_run=options["dry_run"], **chosen)
            check_files(files=options["files"], format=options["format"], mapping=chosen["mapping"])
            if options["dry_run"] or options["strict"]:
                rehearsal = _rehearse_in_new_project(slug, chosen)
                if options["dry_run"]:
                    return rehearsal
            return import_files(project=_create(slug), **chosen)


def _mapping(pairs: list[str]) -> dict[str, str]:
    try:
        return mapping_from(pairs)
    except MappingError as error:
        raise CommandError(f"--map: {error}.") from None


def _rehearse_in_new_project(slug: str, chosen: dict[str, Any]) -> list[ImportReport]:
    """A dry run into a project that is gone afterwards: a refused import leaves no empty project behind."""
    with transaction.atomic():
        reports = import_files(project=_create(slug), dry_run=True, **chosen)
        transaction.set_rollback(True)
    return reports


def _create(slug: str) -> Project:
    try:
        return create_project(slug=slug, name=slug.replace("-", " ").capitalize())
    except ValidationError as error:
        raise CommandError(" ".join(error.messages)) from None
