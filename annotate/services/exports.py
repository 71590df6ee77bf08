"""Exports: a project's rankings as lines of a format, from a place in its feed up to the moment of asking."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from django.utils.translation import gettext as _

from annotate import interchange
from annotate.errors import Invalid
from annotate.models import Project, RankingTask, User
from annotate.selectors.cursors import change_of, cursor_at, last_change
from annotate.selectors.records import (
    ALL_RANKINGS,
    RankingFilter,
    count_records,
    count_strict_pairs,
    records_since,
)

#: Machines must be asked for.
USUAL_ANNOTATORS = tuple(kind for kind in User.Kind.values if kind != User.Kind.MACHINE)
#: What a reader of plain pairs cannot tell apart must not reach it.
_FOR_PAIRS = RankingFilter(counted=True, kinds=(RankingTask.Kind.NORMAL,))


class ExportBroken(Exception):
    """Something of the export was withdrawn while it was written: the lines so far are not the whole, ask again."""


@dataclass(frozen=True, slots=True)
class Export:
    """An export that is fixed but not yet read.

    Attributes:
        count: how many lines there will be.
        cursor: to be given back as `since`, for what comes after this export.
        lines: encoded lines, each ending in a newline, in constant memory; raises ExportBroken instead of ending when
            there are not `count` of them.
    """

    count: int
    cursor: str
    lines: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class _Format:
    wanted: RankingFilter
    count: Callable[..., int]
    markers: bool = False


_FORMATS: dict[str, _Format] = {
    "plackett": _Format(ALL_RANKINGS, count_records, markers=True),
    "trl": _Format(_FOR_PAIRS, count_strict_pairs),
    "trl-conversational": _Format(_FOR_PAIRS, count_strict_pairs),
}


FORMATS = tuple(sorted(_FORMATS))


def open_export(
    project: Project,
    *,
    format: str = "plackett",
    since: str | None = None,
    annotator_kinds: Collection[str] = USUAL_ANNOTATORS,
) -> Export:
    """Fixes what an export holds, and returns it to be read.

    Without `since`: the rankings that stand now. With it: those written since that cursor was given, and in the
    `plackett` format also markers that take earlier lines back (`"type": "superseded"` or `"withdrawn"`, with the
    line's `id`). Formats of pairs have no way to take a pair back; export them whole to be exact.

    Args:
        annotator_kinds: whose rankings; all but machines' unless told.

    Raises:
        Invalid: no such format; or as change_of.
        Conflict: as change_of.
    """
    if format not in _FORMATS:
        known = ", ".join(FORMATS)
        message = _("There is no format %(format)s; there are %(known)s.") % {"format": repr(format), "known": known}
        raise Invalid(message, fields={"format": _("One of %(known)s.") % {"known": known}})
    if not annotator_kinds or set(annotator_kinds) - set(User.Kind.values):
        words = _("Some of %(known)s.") % {"known": ", ".join(User.Kind.values)}
        raise Invalid(words, fields={"annotator_kinds": words})
    chosen = _FORMATS[format]
    after = change_of(since, project=project) if since else 0
    up_to = last_change(project)
    wanted = replace(chosen.wanted, annotator_kinds=tuple(sorted(annotator_kinds)))
    window: dict[str, Any] = {"after_change": after, "up_to_change": up_to, "wanted": wanted}
    if chosen.markers and since:
        window["markers"] = True
    count = chosen.count(project, **window)
    lines = interchange.export_lines(format, records_since(project, **window))
    return Export(count=count, cursor=cursor_at(project=project, change=up_to).encode(), lines=_whole(lines, count))


def _whole(lines: Iterator[bytes], count: int) -> Iterator[bytes]:
    written = 0
    for line in lines:
        written += 1
        yield line
    if written != count:
        raise ExportBroken(f"{written} lines instead of {count}: something was withdrawn meanwhile. Ask again.")
