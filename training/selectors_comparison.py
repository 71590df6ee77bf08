"""Reads for setting runs beside each other: which may be, what differs between them, what came out of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Case, IntegerField, Q, When
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from annotate.errors import Invalid
from training.models import Run
from training.selectors import Someone, get_run_for
from training.selectors_use import with_time_worked

FEWEST, MOST = 2, 6
SIBLINGS = 12
UNKNOWN = object()


def runs_to_compare(user: Someone, run_ids: Sequence[int]) -> list[Run]:
    """The runs in the order asked for, each once, for an engineer of all their projects.

    Raises:
        NotFound, Forbidden: as of one run.
        Invalid: more than six.
    """
    asked = list(dict.fromkeys(run_ids))
    if len(asked) > MOST:
        raise Invalid(_("At most %(most)d runs can be compared at once.") % {"most": MOST})
    for run_id in asked:
        get_run_for(user, run_id)
    runs = Run.objects.select_related("project", "snapshot", "base_version", "model").prefetch_related(
        "inputs__version"
    )
    found = with_time_worked(runs.defer("log_tail", "exit")).in_bulk(asked)
    return [found[run_id] for run_id in asked]


def companions_of(run: Run) -> list[tuple[Run, str]]:
    """The runs of its project that one would compare it with, the nearest first, each with why."""
    mine = Run.objects.filter(project=run.project_id, tried__isnull=True).exclude(pk=run.pk)
    near = Q(pk=run.cloned_from_id) | Q(cloned_from=run.pk) | Q(pk=run.parent_id) | Q(kind=run.kind)
    nearness = Case(
        When(pk=run.cloned_from_id, then=0),
        When(cloned_from=run.pk, then=1),
        When(pk=run.parent_id, then=2),
        When(kind=run.kind, snapshot=run.snapshot_id, then=3),
        default=4,
        output_field=IntegerField(),
    )
    words = (
        pgettext("a run beside another", "this one is its clone"),
        pgettext("a run beside another", "a clone of this one"),
        pgettext("a run beside another", "this one waited for it"),
        pgettext("a run beside another", "same kind, same snapshot"),
        pgettext("a run beside another", "same kind"),
    )
    found = mine.filter(near).annotate(nearness=nearness).order_by("nearness", "-pk")
    found = found.defer("log_tail", "exit", "config", "report")
    return [(one, words[one.nearness]) for one in found[:SIBLINGS]]


# --- what differs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting and its value in each run, in their order; `has` is false where a run has no such setting."""

    name: str
    values: list[Any]
    has: list[bool]


def differing_settings(runs: Sequence[Run]) -> list[Difference]:
    """The settings in which those runs differ that have them: what each trains from first, then the recipe's."""
    settings = [_settings_of(run) for run in runs]
    names = list(dict.fromkeys(name for one in settings for name in one))
    rows = []
    for name in names:
        values = [one.get(name, UNKNOWN) for one in settings]
        known = [value for value in values if value is not UNKNOWN]
        if any(value != known[0] for value in known):
            has = [value is not UNKNOWN for value in values]
            rows.append(Difference(name, [None if value is UNKNOWN else value for value in values], has))
    return rows


def _settings_of(run: Run) -> dict[str, Any]:
    """All that decides the result, under the names of the API."""
    return {
        "project": run.project.slug,
        "kind": run.kind,
        "snapshot": run.snapshot.name if run.snapshot else None,
        "base_model": run.base_version.name if run.base_version else run.base_model,
        **{one.role: one.version.name if one.version else one.name for one in run.inputs.all()},
        **run.config,
        "queue": run.queue,
        "processes": run.processes,
        "nodes": run.nodes,
    }


# --- what came out ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EndFigure:
    """A figure of a report with its 95 % interval, where it has one."""

    value: float
    low: float | None = None
    high: float | None = None


def end_figures(report: Mapping[str, Any] | None) -> dict[str, EndFigure]:
    """The numbers of a report by `part/name`, as `validation/accuracy`, `after/score_mean`, `win_rate`."""
    found: dict[str, EndFigure] = {}
    for name, value in (report or {}).items():
        if (figure := _figure(value)) is not None:
            found[name] = figure
        elif isinstance(value, Mapping) and name in PARTS:
            parts = {f"{name}/{key}": _figure(one) for key, one in value.items()}
            found |= {key: one for key, one in parts.items() if one is not None}
    return found


PARTS = {"before", "after", "change", "validation", "test", "train"}


def _figure(value: Any) -> EndFigure | None:
    if isinstance(value, Mapping):
        own = _number(value.get("value"))
        return None if own is None else EndFigure(own, _number(value.get("low")), _number(value.get("high")))
    own = _number(value)
    return None if own is None else EndFigure(own)


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
