"""The plots of a report as SVG, from the report alone: calibration, best-of-n, accuracy by parts of the pairs.

Drawn twice from the same elements: inline in pages, where classes take their colours from the stylesheet (no style
attribute, no style element: the content security policy refuses both), and as files with colours of their own for light
and dark. What a plot shows stands in its title and description too, and no two things differ by colour alone.
Standard library only: pages import this without loading torch.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from training.core import svg
from training.core.svg import LEFT, RIGHT
from training.core.wording import ENGLISH, Wording, part_name

# Rows of the plot by parts: names to the left, counts to the right.
NAMES, COUNTS = 124, 314
ROW, HEADING = 22, 26

FAMILIES = ("placed", "strength", "annotators", "length_difference")


def plots_of(section: Mapping[str, Any], *, name: str, words: Wording = ENGLISH) -> dict[str, str]:
    """The plots that a split's section holds figures for, by name: ``calibration``, ``best_of_n``, ``parts``.

    Args:
        name: begins the ids in the plots; different for two sections on one page.
    """
    drawn = {
        "calibration": calibration_plot(section, name=name, words=words),
        "best_of_n": best_of_n_plot(section, name=name, words=words),
        "parts": parts_plot(section, name=name, words=words),
    }
    return {kind: plot for kind, plot in drawn.items() if plot is not None}


def calibration_plot(section: Mapping[str, Any], *, name: str, words: Wording = ENGLISH) -> str | None:
    """Share right against mean confidence, with intervals; under it how many pairs each bin holds.

    What an axis is of stands above it, where no interval reaches.
    """
    bins: Sequence[Mapping[str, Any]] = section.get("calibration") or []
    if not bins:
        return None
    top, bottom, ground = 24, 208, 280
    floor = _floor([one["accuracy"] for one in bins], at_most=0.5)

    def x(confidence: float) -> float:
        return LEFT + (confidence - 0.5) * 2 * (RIGHT - LEFT)

    def y(share: float) -> float:
        return bottom - (share - floor) / (1 - floor) * (bottom - top)

    marks = [
        svg.path("axis", f"M{LEFT} {top}V{bottom}H{RIGHT}"),
        svg.path("dashed", svg.line([(x(0.5), y(0.5)), (x(1), y(1))])),
    ]
    marks += _share_ticks(floor, y, words)
    marks.append(svg.text(LEFT, bottom + 15, words.percent(0.5, 0), "start"))
    marks.append(svg.text(x(0.75), bottom + 15, words.percent(0.75, 0), "middle"))
    marks.append(svg.text(RIGHT, bottom + 15, words.percent(1.0, 0), "end"))
    most = max(one["pairs"] for one in bins)
    for one in bins:
        middle, accuracy = x(one["confidence"]), one["accuracy"]
        marks += _whisker(middle, accuracy, y)
        marks.append(svg.dot(middle, y(accuracy["value"])))
        height = max(1.0, one["pairs"] / most * 30)
        left, right = x(one["from"]) + 2, x(one["to"]) - 2
        marks.append(svg.path("bar", f"M{left:.1f} {ground}V{ground - height:.1f}H{right:.1f}V{ground}z"))
        marks.append(svg.text((left + right) / 2, ground - height - 4, words.few_digits(one["pairs"]), "middle"))
    marks.append(svg.text(RIGHT, ground + 16, words.gettext("confidence in the choice; bars: pairs"), "end"))
    marks.append(svg.text(LEFT, top - 12, words.gettext("right"), "start"))
    said = words.gettext("Confidence %(confidence)s: %(accuracy)s right of %(pairs)s pairs.")
    told = [
        said
        % {
            "confidence": words.percent(one["confidence"]),
            "accuracy": words.interval(one["accuracy"]),
            "pairs": words.count(one["pairs"]),
        }
        for one in bins
    ]
    return svg.drawing(f"{name}-calibration", words.gettext("Calibration"), told, marks, ground + 24)


def best_of_n_plot(section: Mapping[str, Any], *, name: str, words: Wording = ENGLISH) -> str | None:
    """Standing of the pick among n: by score, by length, and of the best possible pick."""
    points: Sequence[Mapping[str, Any]] = (section.get("best_of_n") or {}).get("points") or []
    if len(points) < 2:
        return None
    top, bottom = 24, 234
    floor = _floor([one[kind] for one in points for kind in ("model", "longest")], at_most=0.4)

    def x(n: int) -> float:
        return LEFT + 12 + (n - 1) / (len(points) - 1) * (RIGHT - LEFT - 20)

    def y(share: float) -> float:
        return bottom - (share - floor) / (1 - floor) * (bottom - top)

    def curve(kind: str) -> str:
        return svg.line([(x(one["n"]), y(one[kind]["value"])) for one in points])

    marks = [svg.path("axis", f"M{LEFT} {top}V{bottom}H{RIGHT}"), *_share_ticks(floor, y, words)]
    marks += [svg.text(x(one["n"]), bottom + 14, str(one["n"]), "middle") for one in points]
    marks += [
        svg.path("curve most", curve("oracle")),
        svg.path("curve two", curve("longest")),
        svg.path("curve", curve("model")),
    ]
    marks += [svg.diamond(x(one["n"]), y(one["longest"]["value"])) for one in points]
    for one in points:
        marks += _whisker(x(one["n"]), one["model"], y)
        marks.append(svg.dot(x(one["n"]), y(one["model"]["value"])))
    kinds = (
        ("curve", words.gettext("by score")),
        ("curve two", words.gettext("the longest")),
        ("curve most", words.gettext("best possible")),
    )
    for place, (kind, text) in enumerate(kinds):
        begin = LEFT + place * 104
        marks += [svg.path(kind, f"M{begin} {bottom + 32}h20"), svg.text(begin + 25, bottom + 36, text, "start")]
        marks += [svg.dot(begin + 10, bottom + 32)] if kind == "curve" else []
        marks += [svg.diamond(begin + 10, bottom + 32)] if kind == "curve two" else []
    marks.append(svg.text(RIGHT, bottom + 54, words.gettext("responses to choose from"), "end"))
    marks.append(svg.text(LEFT, top - 12, words.gettext("ranked below"), "start"))
    said = words.gettext(
        "Of %(n)s: the pick by score stands at %(model)s, the longest at %(longest)s, the best at %(oracle)s."
    )
    told = [
        said
        % {
            "n": one["n"],
            "model": words.interval(one["model"]),
            "longest": words.percent(one["longest"]["value"]),
            "oracle": words.percent(one["oracle"]["value"]),
        }
        for one in points
    ]
    return svg.drawing(f"{name}-best-of-n", words.gettext("Best of n"), told, marks, bottom + 62)


def parts_plot(section: Mapping[str, Any], *, name: str, words: Wording = ENGLISH) -> str | None:
    """Accuracy of all pairs and of their parts, one row each, with intervals and the length rule beside it."""
    rows = _rows(section, words)
    if len(rows) < 2:
        return None
    shown = [part for _, part in rows if part]
    lengths = [{"value": part["length_baseline"]["value"], "low": None} for part in shown]
    floor = _floor([*shown, *lengths], at_most=0.4)
    ceiling = _ceiling([part for _, part in rows if part])

    def x(share: float) -> float:
        return NAMES + 10 + (share - floor) / (ceiling - floor) * (COUNTS - NAMES - 22)

    top = 24
    height = top + sum(ROW if part else HEADING for _, part in rows) + 4
    marks = [svg.path("axis", f"M{x(floor):.1f} {top}V{height}"), svg.path("dashed", f"M{x(0.5):.1f} {top}V{height}")]
    marks += [svg.text(x(share), 14, words.percent(share, 0), "middle") for share in _spread(floor, ceiling)]
    marks.append(svg.text(RIGHT, 14, words.gettext("pairs"), "end"))
    told, line, about = [], float(top), ""
    said = words.gettext("%(part)s: %(accuracy)s, longer response %(length)s, %(pairs)s pairs.")
    for text, part in rows:
        line += ROW if part else HEADING
        if part is None:
            about = f"{text}, "
            marks.append(svg.text(8, line - 6, text, "start", "heading"))
            continue
        middle = line - ROW / 2
        length = part["length_baseline"]["value"]
        marks.append(svg.text(NAMES, middle + 4, text, "end", "name"))
        # One above the other: they are often at the same share.
        marks.append(svg.diamond(x(length), middle + 5))
        if part["low"] is not None:
            marks.append(svg.path("whisker", f"M{x(part['low']):.1f} {middle - 3:.1f}H{x(part['high']):.1f}"))
        marks.append(svg.dot(x(part["value"]), middle - 3))
        marks.append(svg.text(RIGHT, middle + 4, words.few_digits(part["pairs"]), "end"))
        told.append(
            said
            % {
                "part": about + text,
                "accuracy": words.interval(part),
                "length": words.percent(length),
                "pairs": words.count(part["pairs"]),
            }
        )
    marks += [svg.dot(NAMES + 16, height + 14), svg.text(NAMES + 24, height + 18, words.gettext("model"), "start")]
    marks += [
        svg.diamond(NAMES + 92, height + 14),
        svg.text(NAMES + 100, height + 18, words.gettext("longer response"), "start"),
    ]
    return svg.drawing(f"{name}-parts", words.gettext("Accuracy by kind of pair"), told, marks, height + 28)


def _rows(section: Mapping[str, Any], words: Wording) -> list[tuple[str, Mapping[str, Any] | None]]:
    """(name, part) of each row; a heading has no part. Ways that put all pairs into one part are left out."""
    families = section.get("accuracy_by") or {}
    if (section.get("accuracy") or {}).get("value") is None or not families:
        return []
    headings = {
        "placed": words.gettext("Responses placed"),
        "strength": words.gettext("How much better"),
        "annotators": words.gettext("Judged by"),
        "length_difference": words.gettext("Characters apart"),
    }
    whole = {**section["accuracy"], "length_baseline": section["length_baseline"]}
    rows: list[tuple[str, Mapping[str, Any] | None]] = [(words.gettext("all pairs"), whole)]
    for family in FAMILIES:
        parts = families.get(family) or []
        if len(parts) > 1:
            rows.append((headings[family], None))
            rows += [(part_name(family, part, words), part) for part in parts]
    return rows


# --- elements --------------------------------------------------------------------------------------------------------


def _whisker(x: float, interval: Mapping[str, Any], y: Any) -> list[str]:
    if interval["low"] is None:
        return []
    return [svg.path("whisker", f"M{x:.1f} {y(interval['low']):.1f}V{y(interval['high']):.1f}")]


def _share_ticks(floor: float, y: Any, words: Wording) -> list[str]:
    """The ends and, where there is room, ½."""
    shares = [floor, 1.0] + ([0.5] if floor < 0.45 else [])
    return [svg.text(LEFT - 5, y(share) + 4, words.percent(share, 0), "end") for share in shares]


def _spread(floor: float, ceiling: float) -> list[float]:
    """Shares to write at an axis: ½, and the ends that are not too near to it."""
    return [0.5, ceiling] + ([floor] if 0.5 - floor > (ceiling - floor) / 4 else [])


def _ceiling(parts: Iterable[Mapping[str, Any]]) -> float:
    """The tenth above the highest end."""
    both = [one for part in parts for one in (part, part["length_baseline"])]
    ends: list[float] = [one[end] for one in both for end in ("high", "value") if one[end] is not None]
    return max(0.6, min(1.0, math.ceil(max(ends) * 10 - 1e-9) / 10))


def _floor(intervals: Iterable[Mapping[str, Any]], *, at_most: float) -> float:
    """The tenth below the lowest end, not above ``at_most``."""
    ends: list[float] = [one[end] for one in intervals for end in ("low", "value") if one[end] is not None]
    return min(at_most, math.floor(min(ends) * 10 + 1e-9) / 10)
