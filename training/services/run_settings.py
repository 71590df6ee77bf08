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

# In the order in which one trains: good answers, rankings, the policy; and the baseline that PPO is to beat. Then what
# tries models out.
STARTABLE = (Run.Kind.REWARD, Run.Kind.SFT, Run.Kind.DPO, Run.Kind.PPO, Run.Kind.EVALUATE, Run.Kind.SAMPLE)
EVALUATE_REWARD, EVALUATE_POLICY = "evaluate_reward", "evaluate_policy"
Role = RunInput.Role
OTHER_MODELS = (Role.MODEL_2, Role.MODEL_3, Role.MODEL_4)
# Models besides the base that a run may read, by recipe; each is also the recipe's flag for it, or one more --model.
INPUTS: dict[str, tuple[str, ...]] = {
    Run.Kind.PPO: (Role.REWARD, Role.JUDGE),
    EVALUATE_POLICY: (Role.BASELINE, Role.JUDGE, Role.REWARD),
    Run.Kind.SAMPLE: (*OTHER_MODELS, Role.REWARD),
}

_PLACES = ("model", "data", "output", "resume", "stream")
# Paths of the worker, and leave to run code, which the operator gives.
_OF_PPO = ("value_model", "ptx_data", "ptx_coefficient", "allow_code_execution")
_PLACEHOLDERS = {"model": "-", "data": "-", "output": "-"}

# Rewards that anyone who may start runs may name; the others are paths, or code that would run on a worker.
REWARDS = ("exact", "numeric", "regex", "format")


def recipe_of(kind: str, inputs: Collection[str]) -> str:
    """The recipe of a run, by the models that it is given: an evaluation with a baseline compares two policies, one
    without scores a reward model."""
    if kind == Run.Kind.EVALUATE:
        return EVALUATE_POLICY if Role.BASELINE in inputs else EVALUATE_REWARD
    return kind


def kind_of(recipe: str) -> Run.Kind:
    """The kind of a recipe's runs."""
    return Run.Kind.EVALUATE if recipe in (EVALUATE_REWARD, EVALUATE_POLICY) else Run.Kind(recipe)


def recipe_of_run(run: Run) -> str:
    """The recipe of a run that was started."""
    return recipe_of(run.kind, [one.role for one in run.inputs.all()])


def set_by_server(recipe: str) -> tuple[str, ...]:
    """Settings of the recipe that nobody gives: places on the worker, and what the operator allows."""
    return _PLACES + INPUTS.get(recipe, ()) + (_OF_PPO if recipe == Run.Kind.PPO else ())


def settable_fields(recipe: str) -> list[FieldDescription]:
    """The settings that a person may choose."""
    return [field for field in describe(RECIPES[recipe]) if field.name not in set_by_server(recipe)]


def default_of(recipe: str, name: str) -> Any:
    """What a setting is where nothing is said."""
    return next(field.default for field in describe(RECIPES[recipe]) if field.name == name)


def checked_config(
    kind: str, config: Mapping[str, object], *, inputs: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, str]]:
    """Every setting of the recipe with its value, and what is wrong with those given, by `config.NAME`.

    Args:
        inputs: roles of the models that the run reads besides its base.
    """
    if kind not in STARTABLE:
        return {}, {"kind": _("One of %(kinds)s.") % {"kinds": ", ".join(STARTABLE)}}
    recipe = recipe_of(kind, inputs)
    server, flags = set_by_server(recipe), {field.name for field in describe(RECIPES[recipe])}
    faults = {f"config.{key}": _("is set by the server") for key in server if key in config}
    given = {key: value for key, value in config.items() if key not in server}
    placed = dict.fromkeys(flags.intersection(inputs), "-")
    try:
        checked = to_values(build(RECIPES[recipe], {**_PLACEHOLDERS, **placed, **given}))
    except ConfigError as error:
        return {}, faults | {_field_of(recipe, key): text for key, text in error.errors.items()}
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


def _field_of(recipe: str, name: str) -> str:
    """Where a fault of a recipe's setting is shown: that of a model stands at the model."""
    return name if name in INPUTS.get(recipe, ()) else f"config.{name}"


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
