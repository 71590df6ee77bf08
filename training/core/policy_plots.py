"""The plots of a policy's report as SVG, from the report alone: score and judge over √KL, over steps, and length.

Score and judge are drawn as their change since the start, on one axis: they are on scales of their own, and what is
looked for is where the one still rises and the other no longer does. Standard library only, as ``plots``.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.core import svg
from training.core.svg import LEFT, RIGHT
from training.core.wording import ENGLISH, Wording

TOP, BOTTOM = 24, 214
# ``overoptimisation.LENGTH_GROWS_TO``, which cannot be imported without NumPy.
ALARM = 1.5
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """A course to draw: solid with circles, or, as the ``second``, dashed with diamonds."""

    name: str
    points: Points
    second: bool = False


def policy_plots(report: Mapping[str, Any], *, name: str, words: Wording = ENGLISH) -> dict[str, str]:
    """The plots that a report has a ``curve`` for, by name: ``reward_kl``, ``scores``, ``length``.

    Args:
        name: begins the ids in the plots.
    """
    curve: Sequence[Mapping[str, Any]] = report.get("curve") or []
    if len(curve) < 2:
        return {}
    kept = next((point for point in curve if point["step"] == report.get("kept_step")), None)
    return {
        "reward_kl": _reward_kl(curve, kept, name, words),
        "scores": _scores(curve, kept, name, words),
        "length": _length(curve, kept, name, words),
    }


def _reward_kl(curve: Sequence[Mapping[str, Any]], kept: Mapping[str, Any] | None, name: str, words: Wording) -> str:
    """Score and judge over the root of the KL to the reference, as Gao et al. (2022) draw them."""

    def root(point: Mapping[str, Any]) -> float:
        return math.sqrt(max(point["kl"], 0.0))

    return _plot(
        f"{name}-reward-kl",
        words.gettext("Reward against KL"),
        _changes(curve, root, words),
        beside=words.gettext("change since the start"),
        under=words.gettext("√KL to the reference (KL in nats a response)"),
        mark=None if kept is None else root(kept),
        told=_told(curve, words),
        words=words,
    )


def _scores(curve: Sequence[Mapping[str, Any]], kept: Mapping[str, Any] | None, name: str, words: Wording) -> str:
    return _plot(
        f"{name}-scores",
        words.gettext("Score and judge"),
        _changes(curve, lambda point: float(point["step"]), words),
        beside=words.gettext("change since the start"),
        under=words.gettext("steps"),
        mark=None if kept is None else float(kept["step"]),
        told=_told(curve, words),
        words=words,
    )


def _length(curve: Sequence[Mapping[str, Any]], kept: Mapping[str, Any] | None, name: str, words: Wording) -> str:
    points = [(float(point["step"]), float(point["length"])) for point in curve]
    said = words.gettext("Step %(step)s: %(length)s tokens.")
    told = [said % {"step": point["step"], "length": words.figure(point["length"])} for point in curve]
    return _plot(
        f"{name}-length",
        words.gettext("Length"),
        [Series(words.gettext("tokens"), points)],
        beside=words.gettext("tokens a response"),
        under=words.gettext("steps"),
        mark=None if kept is None else float(kept["step"]),
        told=told,
        words=words,
        floor=0.0,
        level=(ALARM * points[0][1], words.gettext("alarm")),
    )


def _changes(
    curve: Sequence[Mapping[str, Any]], place: Callable[[Mapping[str, Any]], float], words: Wording
) -> list[Series]:
    found = []
    for key, text, second in (("score", words.gettext("score"), False), ("judge", words.gettext("judge"), True)):
        begin = curve[0].get(key)
        if begin is not None:
            found.append(Series(text, [(place(point), point[key] - begin) for point in curve], second))
    return found


def _told(curve: Sequence[Mapping[str, Any]], words: Wording) -> list[str]:
    said = words.gettext("Step %(step)s, KL %(kl)s: score %(score)s, judge %(judge)s.")
    return [
        said
        % {
            "step": point["step"],
            "kl": words.figure(point["kl"]),
            "score": words.figure(point["score"]),
            "judge": words.figure(point["judge"]),
        }
        for point in curve
    ]


def _plot(
    identity: str,
    title: str,
    series: Sequence[Series],
    *,
    beside: str,
    under: str,
    mark: float | None,
    told: Sequence[str],
    words: Wording,
    floor: float | None = None,
    level: tuple[float, str] | None = None,
) -> str:
    """Series on common axes; an upright line at ``mark`` says which step's weights were kept, a level one at ``level``
    what its words say."""
    across = [point[0] for one in series for point in one.points]
    left, right = min(across), max(across)
    up = [point[1] for one in series for point in one.points]
    up += [level[0]] if level else []
    low, high = min([*up, 0.0]) if floor is None else floor, max(up)
    marks_up = ticks(low, high)
    low, high = min(low, marks_up[0]), max(high, marks_up[-1])

    def x(value: float) -> float:
        return LEFT + 8 + (value - left) / ((right - left) or 1.0) * (RIGHT - LEFT - 16)

    def y(value: float) -> float:
        return BOTTOM - (value - low) / ((high - low) or 1.0) * (BOTTOM - TOP)

    marks = [svg.path("axis", f"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}")]
    marks += [svg.text(LEFT - 5, y(value) + 4, words.tick(value), "end") for value in marks_up]
    if low < 0:
        marks.append(svg.path("dashed", f"M{LEFT} {y(0):.1f}H{RIGHT}"))
    if level:
        marks.append(svg.path("dashed", f"M{LEFT} {y(level[0]):.1f}H{RIGHT}"))
        marks.append(svg.text(LEFT + 8, y(level[0]) - 5, level[1], "start"))
    inside = [value for value in ticks(left, right) if left <= value <= right]
    marks += [svg.text(x(value), BOTTOM + 15, words.tick(value), "middle") for value in inside]
    if mark is not None:
        marks.append(svg.path("dashed", f"M{x(mark):.1f} {TOP}V{BOTTOM}"))
        anchor = "end" if x(mark) > (LEFT + RIGHT) / 2 else "start"
        shift = -4 if anchor == "end" else 4
        marks.append(svg.text(x(mark) + shift, BOTTOM - 6, words.gettext("kept"), anchor))
    for one in reversed(series):
        marks += _drawn([(x(across), y(up)) for across, up in one.points], second=one.second)
    marks += _legend(series) if len(series) > 1 else []
    marks += [svg.text(LEFT, TOP - 12, beside, "start"), svg.text(RIGHT, BOTTOM + 33, under, "end")]
    return svg.drawing(identity, title, told, marks, BOTTOM + 60)


def _drawn(points: Points, *, second: bool) -> list[str]:
    course = svg.path("curve two" if second else "curve", svg.line(points))
    return [course, *((svg.diamond if second else svg.dot)(*point) for point in points)]


def _legend(series: Sequence[Series]) -> list[str]:
    marks, line = [], BOTTOM + 50
    for place, one in enumerate(series):
        begin = LEFT + place * 104
        marks.append(svg.path("curve two" if one.second else "curve", f"M{begin} {line}h20"))
        marks.append((svg.diamond if one.second else svg.dot)(begin + 10, line))
        marks.append(svg.text(begin + 25, line + 4, one.name, "start"))
    return marks


def ticks(low: float, high: float) -> list[float]:
    """Three to six round values, the first at or below ``low`` and the last at or above ``high``."""
    span = high - low
    if span <= 0:
        return [low, low + 1.0]
    size = 10.0 ** math.floor(math.log10(span / 3))
    step = next(size * factor for factor in (1, 2, 5, 10) if span / (size * factor) <= 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]
