"""The settings of every recipe: frozen dataclasses from which flags, forms and API are made. Standard library only.

A field is declared once, with its help, unit, choices and bounds; ``describe`` lists the fields for whoever draws a
form or a schema, ``build`` turns loose values (from a form, JSON or flags) into a checked config or into one message
per wrong field, and ``to_arguments`` turns a config back into the flags of ``python -m training.recipes.NAME``.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

Kind = Literal["integer", "number", "text", "choice", "boolean"]
Value = str | int | float | bool | None
Config = TypeVar("Config", bound="BaseConfig")


class ConfigError(ValueError):
    """One message per wrong field, by field name, in ``errors``; what belongs to no field stands under ""."""

    def __init__(self, errors: dict[str, str]) -> None:
        self.errors = errors
        super().__init__("; ".join(f"--{flag_name(name)} {text}" if name else text for name, text in errors.items()))


@dataclass(frozen=True)
class FieldDescription:
    """What a form, a schema or ``--help`` needs to know of one field; ``default`` None on an optional field = unset."""

    name: str
    flag: str
    kind: Kind
    required: bool
    optional: bool
    default: Value
    help: str
    unit: str
    choices: tuple[str, ...]
    minimum: float | None
    maximum: float | None
    above: float | None
    affects_results: bool


def flag_name(name: str) -> str:
    """``batch_size`` → ``batch-size``."""
    return name.replace("_", "-")


def setting(
    default: Value | Literal[dataclasses.MISSING] = dataclasses.MISSING,  # type: ignore[valid-type]
    *,
    help: str,
    unit: str = "",
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    affects_results: bool = True,
) -> Any:
    """Declare a config field; without ``default`` it is required, ``above`` is an open lower bound."""
    metadata = {
        "help": help,
        "unit": unit,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "affects_results": affects_results,
    }
    if default is dataclasses.MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """The flags of everything that forwards a model over a file. ``affects_results`` False: a resume may change it."""

    model: str = setting(help="model folder or hub id to start from")
    data: str = setting(help="JSONL file in the native format (a snapshot)", affects_results=False)
    output: str = setting(help="folder to write, empty unless --resume", affects_results=False)
    seed: int = setting(0, help="every random draw derives from it", minimum=0, maximum=2**63 - 1)
    micro_batch_tokens: int = setting(
        2048,
        help="tokens forwarded at once, padding included; changes memory only, and is halved when memory runs out",
        unit="tokens",
        minimum=1,
        affects_results=False,
    )
    dtype: str = setting(
        "auto",
        help="arithmetic of the forward pass; weights and optimiser are always float32 (auto: float32 on CPU, "
        "bfloat16 on CUDA)",
        choices=("auto", "float32", "bfloat16"),
    )
    device: str = setting("auto", help="where to compute (auto: CUDA if there is one)", choices=("auto", "cpu", "cuda"))
    max_length: int = setting(
        2048, help="longest prompt + response; longer ones are dropped and counted, never cut", unit="tokens", minimum=8
    )
    thinking: str = setting(
        "hide", help="whether a response's thinking is part of what is scored", choices=("hide", "show")
    )
    resume: bool = setting(False, help="go on from the newest good checkpoint in --output", affects_results=False)

    def conflicts(self) -> dict[str, str]:
        """What is wrong with fields that are each right: messages by field name."""
        return {}


@dataclass(frozen=True, kw_only=True)
class CommonConfig(BaseConfig):
    """The flags that every training recipe has."""

    epochs: int = setting(1, help="passes over the training prompts", unit="passes", minimum=1)
    max_steps: int | None = setting(
        None, help="train this many steps instead of --epochs; also fixes the schedule", unit="steps", minimum=1
    )
    stop_after: int | None = setting(
        None,
        help="stop with a checkpoint after this step; the schedule is left alone",
        unit="steps",
        minimum=1,
        affects_results=False,
    )
    batch_size: int = setting(8, help="prompts per optimiser step, over all processes", unit="prompts", minimum=1)
    learning_rate: float = setting(2e-5, help="peak learning rate", above=0)
    warmup: float = setting(0.05, help="share of the steps with a rising rate", unit="share", minimum=0, maximum=1)
    schedule: str = setting(
        "cosine", help="course of the learning rate after the warm-up", choices=("cosine", "linear", "constant")
    )
    weight_decay: float = setting(0.0, help="decoupled weight decay on matrices", minimum=0)
    max_grad_norm: float = setting(1.0, help="gradients are scaled down to this norm", above=0)
    lora_rank: int = setting(0, help="rank of the LoRA adapter; 0 trains all weights", minimum=0, maximum=1024)
    gradient_checkpointing: bool = setting(
        False, help="recompute activations in the backward pass: less memory, slower", affects_results=False
    )
    shard: bool = setting(
        False,
        help="split weights, gradients and optimiser over the processes (FSDP2), for models that one device can hold "
        "but not train; started by torchrun",
        affects_results=False,
    )
    checkpoint_every: int = setting(
        10, help="steps between checkpoints (one is also due every 10 minutes)", unit="steps", minimum=1,
        affects_results=False,
    )  # fmt: skip
    keep_checkpoints: int = setting(
        2, help="checkpoints kept, the newest first", unit="checkpoints", minimum=1, affects_results=False
    )
    log_every: int = setting(
        1, help="steps between log lines (metrics.jsonl has every step)", unit="steps", minimum=1, affects_results=False
    )
    evaluate_every: int | None = setting(
        None, help="steps between validations (unset: after every epoch)", unit="steps", minimum=1
    )
    evaluate_split: str = setting(
        "validation",
        help="split that the report adds to validation; test is read only when asked here",
        choices=("validation", "test"),
    )


@dataclass(frozen=True, kw_only=True)
class RewardConfig(CommonConfig):
    """A reward model from rankings."""

    loss: str = setting(
        "pairwise",
        help="model of a ranking: Bradley-Terry over its pairs, or Plackett-Luce over its choices, best first",
        choices=("pairwise", "plackett-luce"),
    )
    ties: str = setting(
        "skip",
        help="two responses of one tier: not compared, trained towards one half, or a third outcome with a learned "
        "threshold (rao-kupper: of pairs only; davidson: of pairs, and of tiers under plackett-luce)",
        choices=("skip", "soft", "rao-kupper", "davidson"),
    )
    unranked: str = setting(
        "ignore",
        help="responses left unranked: take no part, or stand below everything placed",
        choices=("ignore", "below"),
    )
    strength: str = setting(
        "ignore",
        help="slightly / clearly / much better between tiers: not used, a margin that the winner has to lead by, or "
        "ordered outcomes of adjacent tiers with learned thresholds",
        choices=("ignore", "margin", "ordinal"),
    )
    margin_scale: float = setting(
        0.5, help="margin per step of strength, with --strength margin", unit="nats", minimum=0
    )
    centring: float = setting(
        0.0,
        help="weight of the squared mean score of a prompt's responses; pulls scores of all prompts around one zero",
        minimum=0,
    )
    threshold_learning_rate: float = setting(
        0.01, help="peak learning rate of the thresholds of ties and strengths", above=0
    )
    early_stopping: int | None = setting(
        None,
        help="stop after this many validations without a lower loss, and keep the best weights (unset: never)",
        unit="validations",
        minimum=1,
    )
    ensemble: int = setting(
        1, help="models trained one after the other, each with a seed of its own", unit="models", minimum=1, maximum=64
    )

    def conflicts(self) -> dict[str, str]:
        """Losses, ties and strengths that are no model together."""
        if self.loss == "plackett-luce" and self.ties == "rao-kupper":
            return {"ties": "rao-kupper is for pairs: with --loss plackett-luce choose davidson, soft or skip"}
        if self.loss == "plackett-luce" and self.strength != "ignore":
            return {"strength": "must be ignore with --loss plackett-luce: strengths are of pairs"}
        if self.strength == "ordinal" and self.ties in ("soft", "davidson"):
            return {"ties": "must be rao-kupper or skip with --strength ordinal, whose first threshold is that of ties"}
        return {}


@dataclass(frozen=True, kw_only=True)
class EvaluateRewardConfig(BaseConfig):
    """Scores of a reward model, ours or another's, on rankings or pairs."""

    model: str = setting(help="reward model: a folder or hub id with one label, or the folder of one of our runs")
    data: str = setting(
        help="a snapshot, a JSON or JSONL file of {input, output_1, output_2, label}, or JSONL of "
        "{prompt, chosen, rejected}",
        affects_results=False,
    )
    resume: bool = setting(False, help="leave a finished --output as it is", affects_results=False)
    split: str = setting(
        "test",
        help="which part of a snapshot is scored; other files are scored whole",
        choices=("validation", "test"),
    )


# What the web application offers to start.
RECIPES: dict[str, type[CommonConfig]] = {"reward": RewardConfig}


def describe(config_class: type[BaseConfig]) -> list[FieldDescription]:
    """The fields of a config class, in declaration order."""
    hints = typing.get_type_hints(config_class)
    return [_describe_field(spec, hints[spec.name]) for spec in dataclasses.fields(config_class)]


def _describe_field(spec: "dataclasses.Field[Any]", hint: Any) -> FieldDescription:
    optional = isinstance(hint, types.UnionType) and type(None) in typing.get_args(hint)
    base = next(part for part in typing.get_args(hint) if part is not type(None)) if optional else hint
    kinds: dict[Any, Kind] = {int: "integer", float: "number", bool: "boolean", str: "text"}
    required = spec.default is dataclasses.MISSING
    return FieldDescription(
        name=spec.name,
        flag="--" + flag_name(spec.name),
        kind="choice" if spec.metadata["choices"] else kinds[base],
        required=required,
        optional=optional,
        default=None if required else typing.cast(Value, spec.default),
        help=spec.metadata["help"],
        unit=spec.metadata["unit"],
        choices=spec.metadata["choices"],
        minimum=spec.metadata["minimum"],
        maximum=spec.metadata["maximum"],
        above=spec.metadata["above"],
        affects_results=spec.metadata["affects_results"],
    )


def build(config_class: type[Config], values: Mapping[str, object]) -> Config:
    """A checked config from loose values: strings are read as the field's kind; absent fields take their default.

    Raises:
        ConfigError: with one message for each unknown, missing or wrong field, or for fields that are at odds.
    """
    described = {description.name: description for description in describe(config_class)}
    errors = {name: "is not a setting of this recipe" for name in values if name not in described}
    clean: dict[str, Value] = {}
    for name, description in described.items():
        try:
            clean[name] = _read_value(description, values.get(name, _ABSENT))
        except ValueError as error:
            errors[name] = str(error)
    if errors:
        raise ConfigError(errors)
    config = config_class(**typing.cast(dict[str, Any], clean))
    if conflicts := config.conflicts():
        raise ConfigError(conflicts)
    return config


_ABSENT = object()


def _read_value(description: FieldDescription, value: object) -> Value:
    """One value as its field's kind, within its bounds; ValueError says what is wrong with it."""
    if value is _ABSENT or (value is None and not description.required) or (value == "" and not description.required):
        if description.required:
            raise ValueError("is required")
        return description.default
    if description.kind == "boolean":
        return _read_boolean(value)
    if description.kind in ("integer", "number"):
        return _read_number(description, value)
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("must be a non-empty text")
    if description.choices and value not in description.choices:
        raise ValueError(f"must be one of {', '.join(description.choices)}, not {value!r}")
    return value


def _read_boolean(value: object) -> bool:
    words = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise ValueError("must be true or false")


def _read_number(description: FieldDescription, value: object) -> int | float:
    number = _whole(value) if description.kind == "integer" else _finite(value)
    if description.minimum is not None and number < description.minimum:
        raise ValueError(f"must be at least {description.minimum:g}, not {number:g}")
    if description.above is not None and not number > description.above:
        raise ValueError(f"must be more than {description.above:g}, not {number:g}")
    if description.maximum is not None and number > description.maximum:
        raise ValueError(f"must be at most {description.maximum:g}, not {number:g}")
    return number


def _whole(value: object) -> int:
    try:
        if isinstance(value, str | int | float) and not isinstance(value, bool) and int(value) == float(value):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"must be a whole number, not {value!r}")


def _finite(value: object) -> float:
    try:
        if isinstance(value, str | int | float) and not isinstance(value, bool) and math.isfinite(float(value)):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"must be a finite number, not {value!r}")


def to_values(config: BaseConfig) -> dict[str, Value]:
    """The config as JSON-ready values by field name."""
    return dataclasses.asdict(config)


def to_arguments(config: BaseConfig) -> list[str]:
    """The flags that make ``python -m training.recipes.NAME`` read this very config."""
    arguments: list[str] = []
    for description in describe(type(config)):
        value = getattr(config, description.name)
        if description.kind == "boolean":
            arguments += [description.flag] if value else []
        elif value is not None:
            # One word, so that a value with a leading dash stays a value.
            arguments.append(
                f"{description.flag}={value!r}" if isinstance(value, float) else f"{description.flag}={value}"
            )
    return arguments


def differences(config: BaseConfig, earlier: Mapping[str, object]) -> list[str]:
    """What stands in the way of resuming: ``--flag was X, is Y`` for each result-changing field that differs."""
    found = []
    for description in describe(type(config)):
        now = getattr(config, description.name)
        before = earlier.get(description.name, description.default)
        if description.affects_results and description.name != "model" and now != before:
            found.append(f"{description.flag} was {before}, is {now}")
    return found
