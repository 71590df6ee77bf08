"""Command-line flags made from a config class: one flag a field, ``--help`` with unit and default."""

import argparse
from typing import NoReturn

from training.recipes.settings import AnySettings, ConfigError, FieldDescription, build, describe


class _Parser(argparse.ArgumentParser):
    """argparse prints its usage and exits; a recipe says what is wrong in one line and decides on its own exit."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError({"": message})


def parse_flags(config_class: type[AnySettings], arguments: list[str], *, program: str, summary: str) -> AnySettings:
    """The config that ``arguments`` describe.

    Raises:
        ConfigError: unknown flag, missing value, or a value outside its bounds.
        SystemExit: after ``--help``.
    """
    parser = _Parser(prog=program, description=summary, allow_abbrev=False)
    for description in describe(config_class):
        _add_flag(parser, description)
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    return build(config_class, given)


def _add_flag(parser: argparse.ArgumentParser, description: FieldDescription) -> None:
    text = _help_text(description).replace("%", "%%")
    if description.kind == "boolean":
        parser.add_argument(description.flag, dest=description.name, action="store_true", default=None, help=text)
        return
    if description.kind == "texts":
        parser.add_argument(
            description.flag, dest=description.name, metavar="TEXT", action="append", default=None, help=text
        )
        return
    metavar = "|".join(description.choices) or {"integer": "N", "number": "X"}.get(description.kind, "PATH")
    parser.add_argument(description.flag, dest=description.name, metavar=metavar, help=text)


def _help_text(description: FieldDescription) -> str:
    notes = [f"in {description.unit}"] if description.unit else []
    if description.required:
        notes.append("required")
    elif description.kind != "boolean":
        unset = description.default in (None, ())
        notes.append("default: unset" if unset else f"default: {description.default}")
    return f"{description.help} ({', '.join(notes)})" if notes else description.help
