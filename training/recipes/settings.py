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

Kind = Literal["integer", "number", "text", "texts", "choice", "boolean"]
Value = str | int | float | bool | tuple[str, ...] | None
AnySettings = TypeVar("AnySettings", bound="Settings")


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
class Settings:
    """What every config class stands on."""

    def conflicts(self) -> dict[str, str]:
        """What is wrong with fields that are each right: messages by field name."""
        return {}


def describe(config_class: type[Settings]) -> list[FieldDescription]:
    """The fields of a config class, in declaration order."""
    hints = typing.get_type_hints(config_class)
    return [_describe_field(spec, hints[spec.name]) for spec in dataclasses.fields(config_class)]


def _describe_field(spec: "dataclasses.Field[Any]", hint: Any) -> FieldDescription:
    optional = isinstance(hint, types.UnionType) and type(None) in typing.get_args(hint)
    base = next(part for part in typing.get_args(hint) if part is not type(None)) if optional else hint
    kinds: dict[Any, Kind] = {int: "integer", float: "number", bool: "boolean", str: "text", tuple[str, ...]: "texts"}
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


def build(config_class: type[AnySettings], values: Mapping[str, object]) -> AnySettings:
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
    if description.kind == "texts":
        return _read_texts(value)
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("must be a non-empty text")
    if description.choices and value not in description.choices:
        raise ValueError(f"must be one of {', '.join(description.choices)}, not {value!r}")
    return value


def _read_texts(value: object) -> tuple[str, ...]:
    """A list of texts; of one text, its lines."""
    items = value.splitlines() if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(
        isinstance(item, str) and item and "\0" not in item for item in items
    ):
        raise ValueError("must be a list of non-empty texts")
    return tuple(items)


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
    # Not by way of a float, which holds no more than 53 bits: seeds have 63.
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return value
    try:
        if isinstance(value, str):
            return _whole(int(value) if value.strip().lstrip("+-").isdigit() else float(value))
        if isinstance(value, float) and value.is_integer():
            return _whole(int(value))
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


def to_values(config: Settings) -> dict[str, Value]:
    """The config as JSON-ready values by field name."""
    return dataclasses.asdict(config)


def to_arguments(config: Settings) -> list[str]:
    """The flags that make ``python -m training.recipes.NAME`` read this very config."""
    arguments: list[str] = []
    for description in describe(type(config)):
        value = getattr(config, description.name)
        if description.kind == "boolean":
            arguments += [description.flag] if value else []
        elif description.kind == "texts":
            arguments += [f"{description.flag}={item}" for item in value]
        elif value is not None:
            # One word, so that a value with a leading dash stays a value.
            arguments.append(
                f"{description.flag}={value!r}" if isinstance(value, float) else f"{description.flag}={value}"
            )
    return arguments


def differences(config: Settings, earlier: Mapping[str, object]) -> list[str]:
    """What stands in the way of resuming: ``--flag was X, is Y`` for each result-changing field that differs."""
    found = []
    for description in describe(type(config)):
        now = getattr(config, description.name)
        before = earlier.get(description.name, description.default)
        before = tuple(before) if isinstance(before, list) else before
        if description.affects_results and description.name != "model" and now != before:
            found.append(f"{description.flag} was {before}, is {now}")
    return found
