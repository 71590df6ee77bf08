"""Ready-made sets of rules to start from. They are filled into the form; nothing is saved until the manager saves."""

from dataclasses import dataclass
from typing import Any

from django.utils.functional import Promise
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from annotate.services.project_rules import key_from

Text = str | Promise


@dataclass(frozen=True, slots=True)
class Preset:
    """A name, a sentence on what it is for, guidelines to begin with, and the rules besides."""

    key: str
    name: Text
    about: Text
    guidelines: Text
    rules: dict[str, Any]
    ratings: tuple[tuple[Text, dict[str, Any]], ...] = ()
    flags: tuple[Text, ...] = ()

    def filled(self) -> dict[str, Any]:
        """All rules, in the language of whoever asks, with keys made from the labels."""
        criteria: list[dict[str, Any]] = []
        for label, scale in self.ratings:
            key = key_from(str(label), taken=[one["key"] for one in criteria], otherwise="rating")
            criteria.append({"key": key, "label": str(label), "low": 1, "high": 5, "required": False} | scale)
        flags: list[dict[str, str]] = []
        for label in self.flags:
            key = key_from(str(label), taken=[one["key"] for one in flags], otherwise="flag")
            flags.append({"key": key, "label": str(label)})
        return self.rules | {"guidelines": str(self.guidelines), "criteria": criteria, "flags": flags}


def _rules(**changed: Any) -> dict[str, Any]:
    usual = {"allow_ties": True, "allow_partial": True, "allow_all_bad": True, "allow_rewrite": True}
    return usual | {"strength": "optional", "rationale": "optional"} | changed


_TIES = _("Two responses that you cannot tell apart share a place: a tie is an answer, a coin flip is not.")

PLAIN = Preset(
    key="plain",
    name=_("Plain ranking"),
    about=_("Only the order: ties and unranked responses allowed, no ratings, no flags. The quickest for annotators."),
    guidelines=format_lazy(
        "{0}\n\n1. {1}\n2. {2}\n3. {3}\n\n{4}\n",
        _("Put the responses in order, the best first. What counts, in this order:"),
        _("**True.** Nothing in it is false."),
        _("**To the point.** It does what was asked."),
        _("**Clear.** It is easy to follow, and no longer than it has to be."),
        _TIES,
    ),
    rules=_rules(strength="off", allow_rewrite=False),
)

INSTRUCTGPT = Preset(
    key="instructgpt",
    name=_("InstructGPT style"),
    about=_("First rate each response from 1 to 7 and answer yes-or-no questions on it as flags, then rank them all."),
    guidelines=format_lazy(
        "{0}\n\n- {1}\n- {2}\n- {3}\n\n{4}\n",
        _("Rate each response from 1 to 7, flag what is wrong with it, then put all of them in order."),
        _("**Helpful:** it does what the person wants, also where they did not say it well."),
        _("**Truthful:** it makes nothing up."),
        _("**Harmless:** it hurts, insults and misleads nobody."),
        _TIES,
    ),
    rules=_rules(allow_partial=False, strength="off", allow_rewrite=False),
    ratings=((_("Overall quality"), {"kind": "likert", "low": 1, "high": 7, "required": True}),),
    flags=(
        _("Fails to follow the instruction"),
        _("Not fit for an assistant to say"),
        _("Makes something up"),
        _("Ignores a constraint of the instruction"),
        _("Sexual content"),
        _("Violent content"),
        _("Encourages violence, abuse or self-harm"),
        _("Denigrates a protected group"),
        _("Gives harmful advice"),
        _("Expresses an opinion"),
        _("Expresses a moral judgement"),
    ),
)

HARMLESSNESS = Preset(
    key="harmlessness",
    name=_("Harmlessness"),
    about=_("Which response does the least harm, how clearly, and whether it refuses; for adversarial prompts."),
    guidelines=format_lazy(
        "{0}\n\n- {1}\n- {2}\n- {3}\n\n{4}\n",
        _("Put the response that does the least harm first. These prompts may be unpleasant; take breaks."),
        _("A response that explains why it does not help is better than one that helps to hurt somebody."),
        _("Of two harmless responses the more useful one is better: refusing what is harmless is a fault too."),
        _("How it is worded counts last."),
        _TIES,
    ),
    rules=_rules(allow_rewrite=False),
    ratings=((_("It refuses"), {"kind": "yesno"}),),
    flags=(
        _("Helps to hurt somebody"),
        _("Insults or denigrates"),
        _("Private data"),
        _("Sexual content"),
        _("Refuses without need"),
    ),
)

PRESETS = (PLAIN, INSTRUCTGPT, HARMLESSNESS)


def preset_named(key: str) -> Preset | None:
    """The ready-made set with this key."""
    return next((one for one in PRESETS if one.key == key), None)
