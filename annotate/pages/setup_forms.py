"""The form of a project's set-up: its rules, the rows of ratings and flags, its settings.

A form begins from raw values (of the project, a ready-made set, or what was posted), so that rows can be added, moved
and removed on the server before anything is right. What is right is services.project_rules' business.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django import forms
from django.http import QueryDict
from django.utils.text import slugify
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from annotate.errors import Invalid
from annotate.interchange.records import RecordError, parse_json
from annotate.models import Project, ProjectVersion
from annotate.pages.presets import PRESETS
from annotate.services.project_rules import (
    MAX_CRITERIA,
    MAX_FLAGS,
    MAX_GUIDELINES_CHARACTERS,
    SETTING_RANGES,
    key_from,
    normal_rules,
    rule_faults,
    rules_of,
    setting_faults,
)
from annotate.services.projects import SETTINGS, state_of

NEEDS = [("off", _("Do not ask")), ("optional", _("Ask, but it may be left open")), ("required", _("It must be said"))]
OVERLAP_FOR = [("new", _("New tasks only")), ("all", _("New tasks and those that exist"))]
KINDS = [("likert", _("A scale")), ("yesno", _("Yes or no"))]
LISTS = {"criterion": "criteria", "flag": "flags"}
LIMITS = {"criterion": MAX_CRITERIA, "flag": MAX_FLAGS}
_ROW = re.compile(r"(criterion|flag)-(\d{1,3})-(\w+)")
Raw = dict[str, Any]


class SetupForm(forms.Form):
    """Everything but the rows."""

    use_required_attribute = False

    guidelines = forms.CharField(
        label=_("Guidelines"),
        required=False,
        strip=False,
        max_length=MAX_GUIDELINES_CHARACTERS,
        widget=forms.Textarea(attrs={"rows": 12, "dir": "auto"}),
        help_text=_(
            "What makes one response better than another here. Markdown. Annotators see it before their first task and "
            "again after every change of it, and it is one key away while they rank."
        ),
    )
    allow_ties = forms.BooleanField(
        label=_("Two responses may share a place"),
        required=False,
        help_text=_("A tie. Where ties are off, people who see no difference have to guess."),
    )
    allow_partial = forms.BooleanField(
        label=_("Some responses may stay unranked"),
        required=False,
        help_text=_("At least two must still be placed. Training makes no pairs with unranked responses."),
    )
    allow_all_bad = forms.BooleanField(
        label=_("“All are bad” may be said"),
        required=False,
        help_text=_("Alone or with a ranking. Such a task gives no good example to learn to write from."),
    )
    allow_rewrite = forms.BooleanField(
        label=_("An edited version of a response may be written"),
        required=False,
        help_text=_("Costs the annotator time; gives the best examples to learn to write from."),
    )
    strength = forms.ChoiceField(
        label=_("How much better, for each step"),
        choices=NEEDS,
        widget=forms.RadioSelect,
        help_text=_("Slightly, clearly or much better. One more decision for each step; training can weigh by it."),
    )
    rationale = forms.ChoiceField(
        label=_("Why this order"),
        choices=NEEDS,
        widget=forms.RadioSelect,
        help_text=_("A note in the annotator's own words. Required, it makes every ranking much slower."),
    )
    show_models = forms.BooleanField(
        label=_("Show which model wrote a response"),
        required=False,
        help_text=_("Names colour judgement. Leave this off unless knowing the model is the point."),
    )
    show_thinking = forms.BooleanField(
        label=_("Show the thinking text of a response"),
        required=False,
        help_text=_("Folded above the answer. Where it is hidden, annotators are told that there is one."),
    )
    name = forms.CharField(label=_("Name"), max_length=120)
    description = forms.CharField(
        label=_("Description"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 3, "dir": "auto"}),
        help_text=_("A sentence or two for the list of projects and the project page."),
    )
    overlap = forms.IntegerField(
        label=_("Overlap: annotators for each task"),
        help_text=_(
            "With 3, three people rank the same task independently: three times the work, and you see how far "
            "they agree."
        ),
    )
    overlap_for = forms.ChoiceField(label=_("This overlap is for"), choices=OVERLAP_FOR, widget=forms.RadioSelect)
    lease_minutes = forms.FloatField(
        label=_("Minutes that a task stays reserved"),
        min_value=0.5,
        max_value=7 * 24 * 60,
        help_text=_(
            "Counted from the annotator's last sign of life on the page; then it goes to somebody else. Late "
            "answers are kept."
        ),
    )
    open_lease_limit = forms.IntegerField(
        label=_("Tasks that a person may hold at once"),
        help_text=_(
            "2 is right for people: the task on the page and the next one, which then appears at once. More "
            "only for programs."
        ),
    )
    skip_limit = forms.IntegerField(
        label=_("Skips after which a task is held"),
        help_text=_("Nobody is offered it then until you have looked at it."),
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name, (least, most) in SETTING_RANGES.items():
            if name in self.fields:
                self.fields[name].widget.attrs |= {"min": least, "max": most}


class RowForm(forms.Form):
    """What a rating and a flag have in common."""

    use_required_attribute = False
    label = forms.CharField(label=_("What annotators read"), required=False, max_length=200)
    key = forms.CharField(label=_("Name in the data"), required=False, max_length=50)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["key"].widget.attrs |= {"placeholder": gettext("from the label"), "spellcheck": "false"}


class CriterionForm(RowForm):
    kind = forms.ChoiceField(label=_("Answer"), choices=KINDS, required=False)
    low = forms.IntegerField(label=_("Lowest"), required=False)
    high = forms.IntegerField(label=_("Highest"), required=False)
    required = forms.BooleanField(label=_("Must be given"), required=False)


class FlagForm(RowForm):
    pass


ROWS: dict[str, type[RowForm]] = {"criterion": CriterionForm, "flag": FlagForm}
NEW_ROWS: dict[str, Raw] = {
    "criterion": {"label": "", "key": "", "kind": "likert", "low": 1, "high": 5, "required": False},
    "flag": {"label": "", "key": ""},
}


class Setup:
    """One state of the whole form.

    Attributes:
        seen: what it began from (services.projects.state_of), which goes with the form as hidden JSON.
        rules, settings: what it says, once `is_valid()`; without what is wrong before.
        faults: [(id of the control or its group, what is wrong)], for the summary above the form.
    """

    def __init__(self, raw: Raw, *, seen: Raw, bound: bool = False) -> None:
        self.raw, self.seen, self.bound = raw, seen, bound
        given = {name: value for name, value in raw.items() if name not in LISTS.values()}
        # A checkbox that is off is not in posted data at all.
        posted = {name: value for name, value in given.items() if value is not False}
        self.form = SetupForm(posted) if bound else SetupForm(initial=given)
        self.rows = {kind: [self._row(kind, number) for number in range(len(raw[LISTS[kind]]))] for kind in LISTS}
        self.list_faults: dict[str, str] = {}
        self.rules: Raw = {}
        self.settings: Raw = {}
        self.faults: list[tuple[str, str]] = []

    def _row(self, kind: str, number: int) -> RowForm:
        prefix = f"{kind}-{number}"
        given = self.raw[LISTS[kind]][number]
        if not self.bound:
            return ROWS[kind](initial=given, prefix=prefix)
        posted = {f"{prefix}-{name}": value for name, value in given.items() if value is not False}
        return ROWS[kind](posted, prefix=prefix)

    @classmethod
    def of(cls, project: Project, version: ProjectVersion) -> "Setup":
        """What is in force."""
        state = state_of(project, version)
        return cls(raw_of(rules=rules_of(version), settings=state["settings"]), seen=state)

    @property
    def seen_text(self) -> str:
        return json.dumps(self.seen)

    @property
    def criteria(self) -> list[RowForm]:
        return self.rows["criterion"]

    @property
    def flags(self) -> list[RowForm]:
        return self.rows["flag"]

    def put_focus(self, control: str) -> None:
        """Lets the label with this id have the focus when the page is shown; of buttons the template knows."""
        for row in (*self.criteria, *self.flags):
            if row["label"].id_for_label == control:
                row.fields["label"].widget.attrs["autofocus"] = True

    def hidden(self) -> list[tuple[str, str]]:
        """Names and values that post this state again."""
        scalars = [(name, value) for name, value in self.raw.items() if name not in LISTS.values()]
        rows = [
            (f"{kind}-{number}-{name}", value)
            for kind, plural in LISTS.items()
            for number, row in enumerate(self.raw[plural])
            for name, value in row.items()
        ]
        pairs = [(name, "on" if value is True else str(value)) for name, value in scalars + rows if value is not False]
        return [("seen", self.seen_text), *pairs]

    # --- checking -----------------------------------------------------------------------------------------------------

    def is_valid(self) -> bool:
        """Checks everything and fills `rules`, `settings` and `faults`; whatever is wrong stands at its control."""
        self.form.is_valid()
        for row in (*self.criteria, *self.flags):
            row.is_valid()
        self.rules, self.settings = self._rules(), self._settings()
        kept = {kind: [row for row in rows if not _blank(row)] for kind, rows in self.rows.items()}
        for path, message in rule_faults(self.rules).items():
            self._place(path, message, kept)
        for name, message in setting_faults(self.settings).items():
            self.form.add_error("lease_minutes" if name == "lease_seconds" else name, message)
        self.faults = list(self._collect())
        return not self.faults

    def sound_rules(self, otherwise: Raw) -> Raw:
        """The rules with whatever is wrong left out: rows away, the rest as in `otherwise`. After is_valid()."""
        names = set(rule_faults(self.rules))
        found = {name: value for name, value in self.rules.items() if name not in names}
        for plural in LISTS.values():
            items = self.rules[plural][: LIMITS["criterion" if plural == "criteria" else "flag"]]
            wrong = {path.split(".")[1] for path in names if path.startswith(f"{plural}.")}
            found[plural] = [one for number, one in enumerate(items) if str(number) not in wrong]
        return otherwise | found

    def _rules(self) -> Raw:
        given = self.form.cleaned_data
        plain = {
            name: given[name]
            for name in given
            if name.startswith(("allow_", "show_")) or name in {"guidelines", "strength", "rationale"}
        }
        return normal_rules(plain | {plural: self._items(kind) for kind, plural in LISTS.items()})

    def _items(self, kind: str) -> list[Raw]:
        """The rows as rules take them. Rows left empty are none; a key not given is made from the label."""
        rows = [row.cleaned_data for row in self.rows[kind] if not _blank(row)]
        taken = [row["key"] for row in rows if row.get("key")]
        found = []
        for row in rows:
            label = " ".join(row.get("label", "").split())
            key = row.get("key") or key_from(label, taken=taken, otherwise="rating" if kind == "criterion" else kind)
            taken.append(key)
            found.append(row | {"label": label, "key": key})
        return found

    def _settings(self) -> Raw:
        given = self.form.cleaned_data
        found = {name: given[name] for name in SETTINGS if name in given}
        if "description" in found:
            found["description"] = found["description"].replace("\r\n", "\n")
        if "lease_minutes" in given:
            found["lease_seconds"] = round(given["lease_minutes"] * 60)
        return found

    def _place(self, path: str, message: str, kept: Mapping[str, Sequence[RowForm]]) -> None:
        plural, _dot, rest = path.partition(".")
        kind = next((kind for kind, name in LISTS.items() if name == plural), None)
        if kind and rest:
            number, _dot, field = rest.partition(".")
            row = kept[kind][int(number)]
            if not row.errors.get(field):
                row.add_error(field, message)
        elif kind:
            self.list_faults[plural] = message
        elif not self.form.errors.get(plural):
            self.form.add_error(plural, message)

    def _collect(self) -> Iterable[tuple[str, str]]:
        yield from _said_of(self.form, "%(label)s: %(message)s")
        for number, row in enumerate(self.criteria, 1):
            yield from _said_of(row, gettext("Rating %(number)d, %(label)s: %(message)s"), number=number)
        for number, row in enumerate(self.flags, 1):
            yield from _said_of(row, gettext("Flag %(number)d, %(label)s: %(message)s"), number=number)
        for plural, message in self.list_faults.items():
            yield f"{plural}-title", message

    @property
    def apply_overlap(self) -> bool:
        """The overlap is meant for the tasks that exist as well."""
        return self.raw.get("overlap_for") == "all"


def _said_of(form: forms.Form, words: str, **given: int) -> Iterable[tuple[str, str]]:
    for name, messages in form.errors.items():
        control = form[name].id_for_label or f"id_{form.add_prefix(name)}"
        yield control, words % {"label": form[name].label, "message": messages[0], **given}


def _blank(row: RowForm) -> bool:
    given = getattr(row, "cleaned_data", {})
    return not row.errors and not given.get("label") and not given.get("key")


def minutes(seconds: int) -> float:
    """Seconds as the form shows them: minutes, to two places, which is near enough to get the seconds back."""
    return round(seconds / 60, 2)


def raw_of(*, rules: Raw, settings: Raw) -> Raw:
    """The form's values for these rules and settings."""
    time = minutes(settings["lease_seconds"])
    shown = {name: value for name, value in settings.items() if name != "lease_seconds"}
    return rules | shown | {"lease_minutes": int(time) if time == int(time) else time, "overlap_for": "new"}


# --- what was posted --------------------------------------------------------------------------------------------------


def posted_setup(data: QueryDict, *, bound: bool = True) -> Setup:
    """The state that a browser sent.

    Raises:
        Invalid: the hidden `seen` is none of ours.
    """
    return Setup(posted_raw(data), seen=_seen(data.get("seen", "")), bound=bound)


def posted_raw(data: QueryDict) -> Raw:
    """The posted values by name, with their rows in order."""
    raw: Raw = {}
    for name, field in SetupForm.base_fields.items():
        raw[name] = name in data if isinstance(field, forms.BooleanField) else data.get(name, "")
    raw["guidelines"] = raw["guidelines"].replace("\r\n", "\n")
    rows: dict[str, dict[int, Raw]] = {kind: {} for kind in LISTS}
    for name in data:
        if (match := _ROW.fullmatch(name)) and match[3] in ROWS[match[1]].base_fields:
            rows[match[1]].setdefault(int(match[2]), {})[match[3]] = data[name]
    for kind, plural in LISTS.items():
        found = [row for _number, row in sorted(rows[kind].items())][:100]
        raw[plural] = [_whole_row(kind, row) for row in found]
    return raw


def _whole_row(kind: str, given: Raw) -> Raw:
    fields = ROWS[kind].base_fields
    return {
        name: name in given if isinstance(field, forms.BooleanField) else given.get(name, NEW_ROWS[kind][name])
        for name, field in fields.items()
    }


def _seen(text: str) -> Raw:
    try:
        seen = parse_json(text)
        version, settings = seen["version"], seen["settings"]
        known = {name: settings[name] for name in SETTINGS}
    except (RecordError, KeyError, TypeError):
        raise Invalid(gettext("This form is not whole; load the page again.")) from None
    if type(version) is not int or type(known["lease_seconds"]) is not int:
        raise Invalid(gettext("This form is not whole; load the page again."))
    return {"version": version, "settings": known}


# --- rows -------------------------------------------------------------------------------------------------------------


def change_rows(raw: Raw, what: str) -> tuple[Raw, str | None]:
    """Carries out `criterion-add`, `criterion-2-up`, `criterion-2-down`, `criterion-2-remove`, or the same for flags.

    Returns the new values and the id of the control that should have the focus then; None for an unknown command.
    """
    match = re.fullmatch(r"(criterion|flag)-(?:(add)|(\d{1,3})-(up|down|remove))", what)
    if match is None:
        return raw, None
    kind, add, number, step = match[1], match[2], int(match[3] or 0), match[4]
    rows = list(raw[LISTS[kind]])
    if add:
        if len(rows) < LIMITS[kind]:
            rows.append(dict(NEW_ROWS[kind]))
        focus = f"id_{kind}-{len(rows) - 1}-label"
    elif number >= len(rows):
        return raw, None
    elif step == "remove":
        del rows[number]
        focus = f"{kind}-{min(number, len(rows) - 1)}-remove" if rows else f"{kind}-add"
    else:
        to = max(0, min(number + (-1 if step == "up" else 1), len(rows) - 1))
        rows.insert(to, rows.pop(number))
        at_end = to == (0 if step == "up" else len(rows) - 1)
        focus = f"{kind}-{to}-{({'up': 'down', 'down': 'up'}[step]) if at_end else step}"
    return raw | {LISTS[kind]: rows}, focus


# --- a new project ----------------------------------------------------------------------------------------------------


class NewProjectForm(forms.Form):
    """A name, an address and a set of rules to start from; all but the address can be changed later."""

    name = forms.CharField(label=_("Name"), max_length=120)
    slug = forms.SlugField(
        label=_("Address"),
        max_length=60,
        required=False,
        help_text=_(
            "The project's part of its web addresses and of commands; it cannot be changed later. Left empty, "
            "it is made from the name."
        ),
    )
    description = forms.CharField(
        label=_("Description"),
        required=False,
        max_length=10_000,
        widget=forms.Textarea(attrs={"rows": 3, "dir": "auto"}),
    )
    overlap = forms.IntegerField(
        label=_("Overlap: annotators for each task"),
        min_value=1,
        max_value=50,
        initial=1,
        help_text=_("1 gives the most different tasks for the work; 2 or 3 show how far people agree."),
    )
    preset = forms.ChoiceField(
        label=_("Rules to start from"),
        choices=[(one.key, one.name) for one in PRESETS],
        initial=PRESETS[0].key,
        widget=forms.RadioSelect,
    )

    def clean(self) -> Raw:
        """Makes the address from the name where none is given."""
        given = super().clean() or self.cleaned_data
        if not given.get("slug") and "slug" not in self.errors and given.get("name"):
            given["slug"] = slugify(given["name"])[:60].strip("-_")
            if not given["slug"]:
                self.add_error("slug", gettext("Choose an address: letters a to z, digits and hyphens."))
        if given.get("slug") and Project.objects.filter(slug=given["slug"]).exists():
            self.add_error("slug", gettext("Another project has this address."))
        return given
