"""A project's rules and what changes in them, in words for people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotate.differences import Difference, Piece, difference
from annotate.pages.rendering import count_words

#: Of a long run that both texts have, so many characters are shown at each end.
CONTEXT = 160

Rules = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that changes: its name, and what it says before and after; either may be empty for a list's rows."""

    field: str
    name: str
    before: str
    after: str


def names() -> dict[str, str]:
    """What each rule and each setting is called."""
    return {
        "guidelines": _("Guidelines"),
        "allow_ties": _("Ties"),
        "allow_partial": _("Unranked responses"),
        "allow_all_bad": _("“All are bad”"),
        "strength": _("How much better"),
        "rationale": _("Why this order"),
        "allow_rewrite": _("Edited versions"),
        "criteria": _("Ratings"),
        "flags": _("Flags"),
        "show_models": _("Model names"),
        "show_thinking": _("Thinking texts"),
        "name": _("Name"),
        "description": _("Description"),
        "overlap": _("Overlap"),
        "lease_seconds": _("Time a task stays reserved"),
        "open_lease_limit": _("Tasks held at once"),
        "skip_limit": _("Skips until a task is held"),
    }


def in_words(field: str, value: Any) -> str:
    """The value of a rule or a setting."""
    match field:
        case "guidelines":
            count = count_words(value)
            return ngettext("%(count)d word", "%(count)d words", count) % {"count": count} if count else _("none")
        case "show_models" | "show_thinking":
            return _("shown") if value else _("hidden")
        case "strength" | "rationale":
            return {"off": _("not asked"), "optional": _("optional"), "required": _("required")}.get(value, str(value))
        case "lease_seconds":
            return duration(value)
        case "criteria":
            return "; ".join(criterion_in_words(one) for one in value) or _("none")
        case "flags":
            return "; ".join(one["label"] for one in value) or _("none")
    if isinstance(value, bool):
        return _("allowed") if value else _("off")
    return str(value) or _("none")


def duration(seconds: int) -> str:
    """A length of time: whole hours, else minutes, else seconds."""
    if seconds % 3600 == 0:
        return ngettext("%(count)d hour", "%(count)d hours", seconds // 3600) % {"count": seconds // 3600}
    if seconds % 60 == 0:
        return ngettext("%(count)d minute", "%(count)d minutes", seconds // 60) % {"count": seconds // 60}
    return ngettext("%(count)d second", "%(count)d seconds", seconds) % {"count": seconds}


def criterion_in_words(criterion: Rules) -> str:
    """Such words as “Helpful (1 to 5, required)”."""
    values = {"label": criterion["label"], "low": criterion["low"], "high": criterion["high"]}
    if criterion["kind"] == "yesno":
        words = _("%(label)s (yes or no, required)") if criterion["required"] else _("%(label)s (yes or no)")
    elif criterion["required"]:
        words = _("%(label)s (%(low)s to %(high)s, required)")
    else:
        words = _("%(label)s (%(low)s to %(high)s)")
    return words % values


def rules_in_words(rules: Rules) -> list[tuple[str, list[str]]]:
    """(name, lines) of every rule but the guidelines; one line for each rating and each flag."""
    called = names()
    lines = []
    for field, value in rules.items():
        if field == "criteria":
            shown = [criterion_in_words(one) for one in value] or [_("none")]
        elif field == "flags":
            shown = [one["label"] for one in value] or [_("none")]
        else:
            shown = [in_words(field, value)]
        if field != "guidelines":
            lines.append((called[field], shown))
    return lines


def changes_between(before: Rules, after: Rules) -> list[Change]:
    """What is different, in the order of `names()`; rows of ratings and flags one by one."""
    found: list[Change] = []
    for field, name in names().items():
        if field not in after or before.get(field) == after[field]:
            continue
        if field in {"criteria", "flags"}:
            found += _row_changes(field, before.get(field, []), after[field])
        else:
            found.append(Change(field, name, in_words(field, before[field]), in_words(field, after[field])))
    return found


def _row_changes(field: str, before: Sequence[Rules], after: Sequence[Rules]) -> list[Change]:
    added, gone, changed, moved = (
        (_("New rating"), _("Rating removed"), _("Rating"), _("Order of the ratings"))
        if field == "criteria"
        else (_("New flag"), _("Flag removed"), _("Flag"), _("Order of the flags"))
    )
    say = criterion_in_words if field == "criteria" else _flag_in_words
    old, new = {one["key"]: one for one in before}, {one["key"]: one for one in after}
    found = [Change(field, gone, say(old[key]), "") for key in old if key not in new]
    found += [Change(field, added, "", say(new[key])) for key in new if key not in old]
    found += [
        Change(field, changed, say(old[key]), say(new[key])) for key in new if key in old and old[key] != new[key]
    ]
    stayed = [key for key in old if key in new]
    if stayed != [key for key in new if key in old]:
        before_order, after_order = (", ".join(one["label"] for one in rows) for rows in (before, after))
        found.append(Change(field, moved, before_order, after_order))
    return found


def _flag_in_words(flag: Rules) -> str:
    return str(flag["label"])


def guidelines_difference(before: Rules, after: Rules) -> Difference | None:
    """What changes in the guidelines, word by word, with long unchanged runs cut short; None if nothing does."""
    if before["guidelines"] == after["guidelines"]:
        return None
    found = difference(before["guidelines"], after["guidelines"])
    last = len(found.pieces) - 1
    pieces = [_shortened(piece, first=n == 0, last=n == last) for n, piece in enumerate(found.pieces)]
    return Difference(tuple(pieces), found.only_first, found.only_second)


def _shortened(piece: Piece, *, first: bool, last: bool) -> Piece:
    text = piece.text
    if piece.side != "both" or len(text) <= 3 * CONTEXT:
        return piece
    start = "" if first else text[:CONTEXT].rpartition(" ")[0] + " "
    end = "" if last else " " + text[-CONTEXT:].partition(" ")[2]
    return Piece("both", f"{start}…{end}")
