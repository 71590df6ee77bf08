"""What a project's rules and settings may be. Pages and API ask here: both refuse the same, in the same words."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from django.utils.text import slugify
from django.utils.translation import gettext as _

from annotate.models import ProjectVersion
from annotate.preferences import text_fault

MAX_CRITERIA = 12
MAX_FLAGS = 20
MAX_GUIDELINES_CHARACTERS = 200_000
MAX_DESCRIPTION_CHARACTERS = 10_000
MAX_LABEL_CHARACTERS = 200
MAX_KEY_CHARACTERS = 50
SCALE = (0, 100)
#: The least and the most of each whole number that a project sets.
SETTING_RANGES = {
    "overlap": (1, 50),
    "lease_seconds": (30, 7 * 24 * 3600),
    "open_lease_limit": (1, 1000),
    "skip_limit": (1, 1000),
}
RULE_FIELDS = (
    "guidelines",
    "allow_ties",
    "allow_partial",
    "allow_all_bad",
    "strength",
    "rationale",
    "allow_rewrite",
    "criteria",
    "flags",
    "show_models",
    "show_thinking",
)
_KEY = re.compile(r"[a-zA-Z0-9_-]+")
Faults = Iterable[tuple[str, str]]


def rules_of(version: ProjectVersion) -> dict[str, Any]:
    """The version's rules as change_rules takes them, criteria and flags in their full form."""
    return normal_rules({name: getattr(version, name) for name in RULE_FIELDS})


def normal_rules(rules: Mapping[str, Any]) -> dict[str, Any]:
    """The same rules in one spelling: every criterion with all its keys, yes or no as 0 to 1, line ends as \\n."""
    found = dict(rules)
    if "criteria" in found:
        found["criteria"] = [_criterion(one) for one in found["criteria"]]
    if "flags" in found:
        found["flags"] = [{"key": one.get("key", ""), "label": one.get("label", "")} for one in found["flags"]]
    if "guidelines" in found:
        found["guidelines"] = found["guidelines"].replace("\r\n", "\n")
    return found


def _criterion(given: Mapping[str, Any]) -> dict[str, Any]:
    kind = given.get("kind", "likert")
    low, high = (0, 1) if kind == "yesno" else (given.get("low", 1), given.get("high", 5))
    return {
        "key": given.get("key", ""),
        "label": given.get("label", ""),
        "kind": kind,
        "low": low,
        "high": high,
        "required": bool(given.get("required")),
    }


def key_from(label: str, *, taken: Iterable[str], otherwise: str) -> str:
    """A key for exports made from a label, unlike those taken; `otherwise` where no letter of the label can stay."""
    stem = slugify(label).replace("-", "_")[: MAX_KEY_CHARACTERS - 4].strip("_") or otherwise
    known, key, number = set(taken), stem, 2
    while key in known:
        key, number = f"{stem}_{number}", number + 1
    return key


def rule_faults(rules: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with those of the rules that are given: path (`guidelines`, `criteria.0.high`) → what to do."""
    faults: dict[str, str] = {}
    for path, message in (*_plain_faults(rules), *_criteria_faults(rules), *_flag_faults(rules)):
        faults.setdefault(path, message)
    return faults


def _plain_faults(rules: Mapping[str, Any]) -> Faults:
    if fault := text_fault(rules.get("guidelines", ""), limit=MAX_GUIDELINES_CHARACTERS):
        yield "guidelines", fault
    for name, choices in (("strength", ProjectVersion.Strength), ("rationale", ProjectVersion.Rationale)):
        if name in rules and rules[name] not in choices.values:
            yield name, _("One of: %(choices)s.") % {"choices": ", ".join(choices.values)}


def _criteria_faults(rules: Mapping[str, Any]) -> Faults:
    criteria = rules.get("criteria", [])
    if len(criteria) > MAX_CRITERIA:
        yield "criteria", _("At most %(count)d ratings for each response.") % {"count": MAX_CRITERIA}
    yield from _named_faults("criteria", criteria)
    for number, one in enumerate(criteria):
        if one.get("kind", "likert") not in {"likert", "yesno"}:
            yield f"criteria.{number}.kind", _("One of: %(choices)s.") % {"choices": "likert, yesno"}
        yield from _scale_faults(f"criteria.{number}", one)


def _scale_faults(path: str, criterion: Mapping[str, Any]) -> Faults:
    if criterion.get("kind") == "yesno":
        return
    low, high = criterion.get("low", 1), criterion.get("high", 5)
    for name, value in (("low", low), ("high", high)):
        if type(value) is not int or not SCALE[0] <= value <= SCALE[1]:
            yield f"{path}.{name}", _("A whole number from %(low)d to %(high)d.") % {"low": SCALE[0], "high": SCALE[1]}
            return
    if low >= high:
        yield f"{path}.high", _("The highest value must be above the lowest.")


def _flag_faults(rules: Mapping[str, Any]) -> Faults:
    flags = rules.get("flags", [])
    if len(flags) > MAX_FLAGS:
        yield "flags", _("At most %(count)d flags.") % {"count": MAX_FLAGS}
    yield from _named_faults("flags", flags)


def _named_faults(path: str, items: Iterable[Mapping[str, Any]]) -> Faults:
    keys: set[str] = set()
    labels: set[str] = set()
    for number, one in enumerate(items):
        label, key = str(one.get("label", "")).strip(), str(one.get("key", ""))
        if not label:
            yield f"{path}.{number}.label", _("Say what annotators read here.")
        elif fault := text_fault(label, limit=MAX_LABEL_CHARACTERS):
            yield f"{path}.{number}.label", fault
        elif label.casefold() in labels:
            yield f"{path}.{number}.label", _("Two have this label; annotators could not tell them apart.")
        if len(key) > MAX_KEY_CHARACTERS or not _KEY.fullmatch(key):
            yield f"{path}.{number}.key", _("Letters a to z, digits, - and _, at most %(count)d.") % {"count": 50}
        elif key in keys:
            yield f"{path}.{number}.key", _("Another one has this key.")
        keys.add(key)
        labels.add(label.casefold())


def setting_faults(settings: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with those of a project's settings that are given, by name."""
    faults: dict[str, str] = {}
    for name, limit in (("name", 120), ("description", MAX_DESCRIPTION_CHARACTERS)):
        if fault := text_fault(settings.get(name, ""), limit=limit):
            faults[name] = fault
    if "name" in settings and not settings["name"].strip():
        faults["name"] = _("A project needs a name.")
    for name, (least, most) in SETTING_RANGES.items():
        value = settings.get(name, least)
        if type(value) is not int or not least <= value <= most:
            faults[name] = _("A whole number from %(low)d to %(high)d.") % {"low": least, "high": most}
    return faults
