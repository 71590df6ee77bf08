"""What a person may set of a run, by kind: the recipe's settings without those that are the server's to give."""

from collections.abc import Collection, Mapping
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _

from annotate.errors import Invalid
from training.models import Run, RunInput
from training.recipes.configs import (
    PRESETS,
    RECIPES,
    ConfigError,
    FieldDescription,
    build,
    describe,
    preset_named,
    reward_kind,
    to_values,
)

# In the order in which one trains: good answers, rankings, the policy; and the baseline that PPO is to beat.
STARTABLE = (Run.Kind.REWARD, Run.Kind.SFT, Run.Kind.DPO, Run.Kind.PPO)
# Models besides the base that a run may read; each is also the recipe's flag for it.
INPUTS: dict[str, tuple[str, ...]] = {Run.Kind.PPO: tuple(RunInput.Role.values)}

_PLACES = ("model", "data", "output", "resume")
# Paths of the worker, and leave to run code, which the operator gives.
_OF_PPO = (*RunInput.Role.values, "value_model", "ptx_data", "ptx_coefficient", "allow_code_execution")
_PLACEHOLDERS = {"model": "-", "data": "-", "output": "-"}

# Rewards that anyone who may start runs may name; the others are paths, or code that would run on a worker.
REWARDS = ("exact", "numeric", "regex", "format")


def set_by_server(kind: str) -> tuple[str, ...]:
    """Settings of the recipe that nobody gives: places on the worker, and what the operator allows."""
    return _PLACES + (_OF_PPO if kind == Run.Kind.PPO else ())


def settable_fields(kind: str) -> list[FieldDescription]:
    """The settings that a person may choose."""
    return [field for field in describe(RECIPES[kind]) if field.name not in set_by_server(kind)]


def checked_config(
    kind: str, config: Mapping[str, object], *, inputs: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, str]]:
    """Every setting of the recipe with its value, and what is wrong with those given, by `config.NAME`.

    Args:
        inputs: roles of the models that the run reads besides its base.
    """
    if kind not in Run.Kind.values:
        return {}, {"kind": _("One of %(kinds)s.") % {"kinds": ", ".join(Run.Kind.values)}}
    if kind not in STARTABLE:
        words = _("%(kind)s runs cannot be started from here; there is a command for them.")
        return {}, {"kind": words % {"kind": Run.Kind(kind).label}}
    server = set_by_server(kind)
    faults = {f"config.{key}": _("is set by the server") for key in server if key in config}
    given = {key: value for key, value in config.items() if key not in server}
    placed = dict.fromkeys(inputs, "-")
    try:
        checked = to_values(build(RECIPES[kind], {**_PLACEHOLDERS, **placed, **given}))
    except ConfigError as error:
        return {}, faults | {_field_of(kind, key): text for key, text in error.errors.items()}
    faults |= reward_faults(checked.get("reward"))
    return {key: value for key, value in checked.items() if key not in server}, faults


def with_preset(kind: str, name: str, config: Mapping[str, object]) -> dict[str, object]:
    """The settings of a named preset with those that are given in place of its own; "" names none.

    Raises:
        Invalid: the kind has no such preset.
    """
    if not name:
        return dict(config)
    preset = preset_named(kind, name)
    if preset is None:
        offered = ", ".join(one.name for one in PRESETS.get(kind, ())) or _("none")
        message = _("Runs of this kind have no such preset; there are: %(presets)s.") % {"presets": offered}
        raise Invalid(_("The run cannot be started."), fields={"preset": message})
    return {**preset.config, **config}


def _field_of(kind: str, name: str) -> str:
    """Where a fault of a recipe's setting is shown: that of a model stands at the model."""
    return name if name in INPUTS.get(kind, ()) else f"config.{name}"


def offered_rewards() -> list[str]:
    """What a person may name as a reward: the checkable ones, and what the operator allows."""
    return ["regex:PATTERN" if kind == "regex" else kind for kind in REWARDS] + list(settings.REWARD_FUNCTIONS)


def reward_faults(rewards: object) -> dict[str, str]:
    """What is wrong with rewards that were named from outside, by field: those that this server does not offer."""
    refused = [text for text in _texts(rewards) if not _is_offered(text)]
    if not refused:
        return {}
    offered = ", ".join(offered_rewards())
    words = _("%(reward)s is not offered here; offered are %(offered)s. A model is named as the reward model.")
    return {"config.reward": words % {"reward": refused[0], "offered": offered}}


def _is_offered(text: str) -> bool:
    kind, argument = reward_kind(text)
    if kind == "tests":
        return "tests" in settings.REWARD_FUNCTIONS
    return kind in REWARDS or (kind == "python" and f"python:{argument}" in settings.REWARD_FUNCTIONS)


def runs_code(config: Mapping[str, Any]) -> bool:
    """Whether a run's rewards execute what the policy writes; asked again where the trainer starts."""
    return any(reward_kind(text)[0] == "tests" for text in _texts(config.get("reward")))


def _texts(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list | tuple) else []
