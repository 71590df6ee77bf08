"""Exports: a project's rankings as lines of a format, from a place in its feed up to the moment of asking."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from django.utils.translation import gettext as _

from annotate.errors import Invalid
from annotate.interchange.exporting import EXPORTS, MEDIA_TYPES, ExportFormat, encoded
from annotate.interchange.options import ExportOptions, OptionError
from annotate.models import Change, Project, RankingTask
from annotate.preferences import TiePolicy
from annotate.selectors.cursors import change_of, cursor_at, last_change
from annotate.selectors.line_counts import Counted, Window, demonstrations_of
from annotate.selectors.records import (
    RankingFilter,
    demonstration_records,
    rankings_by_task,
    records_since,
)

FORMATS = tuple(EXPORTS)
Row = dict[str, Any]


class ExportBroken(Exception):
    """Something of the export was withdrawn while it was written: the lines so far are not the whole, ask again."""


@dataclass(frozen=True, slots=True)
class Export:
    """An export that is fixed but not yet read.

    Attributes:
        count: how many lines (rows of a table) there will be.
        cursor: to be given back as `since`, for what comes after this export.
        lines: the bytes, in constant memory: encoded lines, or blocks of a table; raises ExportBroken instead of
            ending when there are not `count` lines.
        media_type: what the bytes are.
        extension: how a file of them is called.
    """

    count: int
    cursor: str
    lines: Iterator[bytes]
    media_type: str
    extension: str


def open_export(
    project: Project, *, format: str = "plackett", since: str | None = None, options: Mapping[str, str] | None = None
) -> Export:
    """Fixes what an export holds, and returns it to be read.

    Without `since`: the rankings that stand now. With it: those written since that cursor was given, and in the
    `plackett` format also markers that take earlier lines back (`"type": "superseded"` or `"withdrawn"`, with the
    line's `id`). The other formats have no way to take a line back; export them whole to be exact.

    Pairs that depend on all annotators of a task (`votes=majority`, `agreement`) are not a function of what is new,
    and demonstrations are not in the feed: there `since` is refused.

    Args:
        options: texts by the names of `interchange.options.OPTIONS`.

    Raises:
        Invalid: no such format, an option that cannot be, or `since` where it means nothing; or as change_of.
        Conflict: as change_of.
    """
    chosen = format_named(format)
    asked = checked_options(chosen, options or {})
    _check_since(project, chosen, asked, since)
    window = _Asked(project, chosen, asked, change_of(since, project=project) if since else 0, last_change(project))
    count = window.count(markers=bool(since))
    rows = _whole(window, window.rows(markers=bool(since)), count)
    return Export(
        count=count,
        cursor=cursor_at(project=project, change=window.up_to).encode(),
        lines=encoded(rows, format=chosen, options=asked),
        media_type=MEDIA_TYPES[asked.container],
        extension=asked.container,
    )


def first_rows(project: Project, *, format: str, options: Mapping[str, str] | None = None, limit: int) -> list[Row]:
    """The first rows that an export would have, to be shown.

    Raises:
        Invalid: as open_export.
    """
    chosen = format_named(format)
    asked = checked_options(chosen, options or {})
    rows = _Asked(project, chosen, asked, 0, last_change(project)).rows(markers=False)
    return [row for row, _number in zip(rows, range(limit), strict=False)]


def format_named(name: str) -> ExportFormat:
    """The format of that name.

    Raises:
        Invalid: there is none.
    """
    if name not in EXPORTS:
        known = ", ".join(FORMATS)
        message = _("There is no format %(format)s; there are %(known)s.") % {"format": repr(name), "known": known}
        raise Invalid(message, fields={"format": _("One of %(known)s.") % {"known": known}})
    return EXPORTS[name]


def checked_options(format: ExportFormat, given: Mapping[str, str]) -> ExportOptions:
    """The options, if the format can do what is asked.

    Raises:
        Invalid: it cannot; `fields` names the option.
    """
    try:
        return format.options_from(given)
    except OptionError as error:
        raise Invalid(
            _("The option %(name)s cannot be that: %(why)s") % {"name": error.name, "why": error},
            fields={error.name: str(error)},
        ) from None


def _check_since(project: Project, chosen: ExportFormat, asked: ExportOptions, since: str | None) -> None:
    if not since:
        return
    if asked.by_task:
        words = _(
            "What the annotators of a task say together changes with each of them, so it cannot be told since a "
            "cursor: export it whole, without since."
        )
        raise Invalid(words, fields={"since": _("Not with votes=majority or agreement.")})
    if chosen.demonstrations and demonstrations_of(project).exists():
        words = _("Demonstrations are not in the feed that since counts by: export this format whole, without since.")
        raise Invalid(words, fields={"since": _("Not while the project has demonstrations.")})


@dataclass(frozen=True, slots=True)
class _Asked:
    """The part of a project's feed that an export is made of."""

    project: Project
    format: ExportFormat
    options: ExportOptions
    after: int
    up_to: int

    @property
    def wanted(self) -> RankingFilter:
        splits = (self.options.split,) if self.options.split else None
        if self.format.name == "plackett":
            return RankingFilter(annotator_kinds=self.options.annotator_kinds, splits=splits)
        # What a reader of plain lines cannot tell apart must not reach it.
        return RankingFilter(
            counted=True,
            kinds=(RankingTask.Kind.NORMAL,),
            annotator_kinds=self.options.annotator_kinds,
            splits=splits,
        )

    def rows(self, *, markers: bool) -> Iterator[Row]:
        if self.options.by_task:
            tasks = rankings_by_task(self.project, up_to_change=self.up_to, wanted=self.wanted, key=self.options.key)
            return self.format.rows_of_tasks(tasks, self.options)
        records = records_since(
            self.project,
            after_change=self.after,
            up_to_change=self.up_to,
            wanted=self.wanted,
            markers=markers and self.format.name == "plackett",
            key=self.options.key,
        )
        if self.format.demonstrations and not self.after:
            records = chain(records, demonstration_records(self.project, splits=self.wanted.splits))
        return self.format.rows(records, self.options)

    def withdrawn_since(self) -> bool:
        """Whether anything was withdrawn after the window's end; a majority may change by it and keep its number."""
        later = Change.objects.filter(project=self.project, kind=Change.Kind.WITHDRAWAL, number__gt=self.up_to)
        return later.exists()

    def count(self, *, markers: bool) -> int:
        if self.options.by_task:
            # No shape of single rankings tells it; the same pass that writes the lines counts them.
            return sum(1 for _row in self.rows(markers=False))
        window = Window(self.project, self.after, self.up_to, self.wanted)
        if self.format.counted == "records":
            return window.count_records(markers=markers)
        found = _COUNTS[self.format.counted](window, self.options)
        if self.format.demonstrations and not self.after:
            found += demonstrations_of(self.project, splits=self.wanted.splits).count()
        return found


_PAIRS: dict[TiePolicy, tuple[Counted, ...]] = {
    "drop": ("strict_pairs",),
    "soft": ("strict_pairs", "tied_pairs"),
    "both": ("strict_pairs", "tied_pairs", "tied_pairs"),
}


def _count_pairs(window: Window, options: ExportOptions) -> int:
    return window.count(*_PAIRS[options.ties])


_COUNTS: dict[str, Callable[[Window, ExportOptions], int]] = {
    "pairs": _count_pairs,
    "battles": lambda window, _options: window.count("strict_pairs", "tied_pairs"),
    "placed": lambda window, _options: window.count("placed"),
    "labels": lambda window, _options: window.count("labels"),
    "imitated": lambda window, _options: window.count("imitated"),
}


def _whole(window: _Asked, rows: Iterator[Row], count: int) -> Iterator[Row]:
    written = 0
    for row in rows:
        written += 1
        yield row
    if written != count or (window.options.by_task and window.withdrawn_since()):
        raise ExportBroken(f"{written} lines instead of {count}: something was withdrawn meanwhile. Ask again.")
