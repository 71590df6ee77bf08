"""Exports a project's rankings."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotate.errors import Refused
from annotate.interchange.options import NAMES, OPTIONS
from annotate.management.progress import bar, project_of
from annotate.services.exports import FORMATS, ExportBroken, open_export


class Command(BaseCommand):
    help = (
        "Write a project's rankings in one of the formats, to a file or to standard output. The file appears when it "
        "is whole. "
        "The cursor printed at the end is for the next call's --since."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--format", default="plackett", choices=FORMATS)
        parser.add_argument("--since", metavar="CURSOR", help="Only what came after this cursor was given.")
        for option in OPTIONS:
            parser.add_argument(f"--{option.name.replace('_', '-')}", choices=option.values or None, help=option.about)
        parser.add_argument("--output", default="-", metavar="FILE", help="Without, or -: standard output.")
        parser.add_argument("--dry-run", action="store_true", help="Say how many lines there are and write nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            export = open_export(
                project=project_of(options["project"]),
                format=options["format"],
                since=options["since"],
                options={name: options[name] for name in NAMES if options[name] is not None},
            )
            if options["dry_run"]:
                self.stderr.write(f"{export.count:,} lines would be written.")
                return
            with (
                bar(description="Exporting", unit="B", scale=True, quiet=options["verbosity"] == 0) as progress,
                _opened(options["output"]) as out,
            ):
                for line in export.lines:
                    out.write(line)
                    progress.update(len(line))
        except Refused as refused:
            raise CommandError(refused.message) from None
        except ExportBroken as broken:
            raise CommandError(str(broken)) from None
        except OSError as error:
            raise CommandError(f"{options['output']}: {error.strerror}") from None
        if options["verbosity"]:
            self.stderr.write(f"{export.count:,} lines written.")
            self.stderr.write(f"cursor: {export.cursor}")


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    """Standard output, or a file that replaces the named one when all of it is written."""
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
