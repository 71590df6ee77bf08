"""What the data commands have in common: a project by its slug, a progress bar, a report in words."""

from typing import Any

from django.core.management.base import CommandError, OutputWrapper
from tqdm import tqdm

from annotate.models import Project
from annotate.services.import_reports import ImportReport


def project_of(slug: str) -> Project:
    """The project, or the end of the command."""
    project = Project.objects.filter(slug=slug).first()
    if project is None:
        raise CommandError(f"There is no project {slug!r}.")
    return project


def bar(
    *, description: str, total: int | None = None, unit: str = " records", scale: bool = False, quiet: bool = False
) -> "tqdm[Any]":
    """A progress bar on stderr, if that is a terminal; `scale` writes thousands as k, millions as M."""
    hidden = True if quiet else None
    return tqdm(desc=description, total=total, unit=unit, unit_scale=scale, disable=hidden, dynamic_ncols=True)


def say_report(out: OutputWrapper, source: str, report: ImportReport) -> None:
    """Counts of what was read, written and not taken, why, and where the first faults stood."""
    would = "would be " if report.dry_run else ""
    out.write(
        f"{source}: {report.read:,} read, {report.written:,} {would}written, {report.unchanged:,} unchanged, "
        f"{report.conflicts:,} conflicts, {report.skipped:,} skipped, {report.left_out:,} left out by the format's rule"
    )
    rows = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sorted(report.rows.items()))
    if rows:
        out.write(f"  rows: {rows}")
    for reason, count in report.reasons.most_common():
        out.write(f"  {count:,} × {reason}")
    for fault in report.faults:
        place = f"line {fault.line}" + (f", item {fault.item}" if fault.item is not None else "")
        out.write(f"  {fault.kind}: {fault.source}, {place}: {fault.reason}")
    if left := report.fault_count - len(report.faults):
        out.write(f"  … and {left:,} more")
