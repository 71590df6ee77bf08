"""What can be asked of an export: the same names in REST, on the command line and on the page.

`OPTIONS` is the one list of them; the API's parameters, the command's flags, the page's form and a test of the
documentation are made from it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from annotate.preferences import SPLITS, TiePolicy

Votes = Literal["each", "majority"]
Container = Literal["jsonl", "csv", "parquet"]

CONTAINERS: tuple[Container, ...] = ("jsonl", "csv", "parquet")
MAX_KEY_CHARACTERS = 200
ANNOTATOR_KINDS = ("human", "machine", "imported", "example")
#: Machines must be asked for.
USUAL_ANNOTATORS = tuple(kind for kind in ANNOTATOR_KINDS if kind != "machine")


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its values (empty: `about` says what may be given) and what happens without it."""

    name: str
    values: tuple[str, ...]
    default: str
    about: str


OPTIONS: tuple[Option, ...] = (
    Option("as", CONTAINERS, "jsonl", "How lines are written: one JSON object a line, CSV, or Parquet."),
    Option(
        "annotator_kinds",
        (),
        "human,imported,example",
        "Whose rankings, separated by commas: human, machine, imported, example.",
    ),
    Option("reviewed", ("any", "yes"), "any", "Only rankings whose review that holds now accepted them."),
    Option("split", SPLITS, "", "Only this part of the data."),
    Option("models", ("yes", "no"), "", "Whether the names of the models that wrote the responses go out."),
    Option("key", (), "", "Pseudonyms of annotators under this key: equal for equal keys, unrelated for others."),
    Option("ties", ("drop", "both", "soft"), "drop", "Tied pairs: left out, one line each way, or marked as a tie."),
    Option("margin", ("none", "strength"), "none", "A margin for each pair: the strength that was stated, else 0."),
    Option("votes", ("each", "majority"), "each", "Pairs of each annotator, or those that the majority prefers."),
    Option("agreement", (), "0", "Only pairs on which this share of a task's annotators agrees, from 0 to 1."),
)
NAMES = tuple(option.name for option in OPTIONS)

#: Every format takes these.
_COMMON = frozenset({"as", "annotator_kinds", "reviewed", "split", "models"})
OF_PAIRS = _COMMON | {"ties", "margin", "votes", "agreement"}
OF_RANKINGS = _COMMON
WITH_ANNOTATORS = _COMMON | {"key"}


class OptionError(ValueError):
    """An option that is unknown, has no such value, or means nothing to the format; `name` says which."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options, checked. `agreement` 0 asks for none; `split` None is every split."""

    container: Container = "jsonl"
    annotator_kinds: tuple[str, ...] = USUAL_ANNOTATORS
    reviewed: bool = False
    split: str | None = None
    models: bool = False
    key: str = ""
    ties: TiePolicy = "drop"
    margin: bool = False
    votes: Votes = "each"
    agreement: float = 0.0

    @property
    def by_task(self) -> bool:
        """Whether a pair depends on all annotators of its task."""
        return self.votes == "majority" or self.agreement > 0


def options_from(given: Mapping[str, str], *, format: str, allowed: Collection[str], models: bool) -> ExportOptions:
    """Check what was asked of a format.

    Args:
        given: texts by option name; what is missing or empty is the default.
        allowed: names that mean something to the format.
        models: whether the format names models unless told otherwise.

    Raises:
        OptionError: the first that cannot be.
    """
    given = {name: text for name, text in given.items() if text != ""}
    for name, text in given.items():
        _check(name, text, format=format, allowed=allowed)
    chosen: dict[str, Any] = {name: given[name] for name in ("split", "key", "ties", "votes") if name in given}
    return ExportOptions(
        container=given.get("as", "jsonl"),  # type: ignore[arg-type]  # one of CONTAINERS, as checked
        annotator_kinds=_kinds(given.get("annotator_kinds", "")),
        models=given["models"] == "yes" if "models" in given else models,
        reviewed=given.get("reviewed") == "yes",
        margin=given.get("margin") == "strength",
        agreement=_share(given.get("agreement", "0")),
        **chosen,
    )


def _check(name: str, text: str, *, format: str, allowed: Collection[str]) -> None:
    option = next((one for one in OPTIONS if one.name == name), None)
    if option is None:
        raise OptionError(name, f"There is no option {name}; there are {', '.join(NAMES)}.")
    if name not in allowed:
        known = ", ".join(one for one in NAMES if one in allowed)
        raise OptionError(name, f"The format {format} has no use for {name}; it takes {known}.")
    if option.values and text not in option.values:
        raise OptionError(name, f"One of {', '.join(option.values)}.")
    if name == "key" and len(text) > MAX_KEY_CHARACTERS:
        raise OptionError(name, f"At most {MAX_KEY_CHARACTERS} characters.")


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(kind.strip() for kind in text.split(",") if kind.strip()) or USUAL_ANNOTATORS
    if set(kinds) - set(ANNOTATOR_KINDS):
        raise OptionError("annotator_kinds", f"Some of {', '.join(ANNOTATOR_KINDS)}, separated by commas.")
    return kinds


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise OptionError("agreement", "A number from 0 to 1, for example 0.66.")
    return share
