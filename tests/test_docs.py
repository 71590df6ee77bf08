"""Documentation that cannot fall behind: settings, commands, flags, what the API takes, formats, events, links."""

import argparse
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand
from drf_spectacular.generators import SchemaGenerator

from annotate.interchange import EXPORTS, FORMATS, export_lines, read_file
from annotate.interchange.options import OPTIONS
from annotate.interchange.records import ImportedRecord
from annotate.models import Webhook
from benchmarks.__main__ import HELPERS
from plackett import cli
from training.recipes import configs
from webapp.stack import __main__ as stack

ROOT = Path(__file__).resolve().parent.parent


def _page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def _read(*globs: str) -> str:
    files = [path for pattern in globs for path in ROOT.glob(pattern)]
    assert files, globs
    return "\n".join(path.read_text() for path in files)


RECIPES = [
    (configs.RewardConfig, "training.md", "reward"),
    (configs.EvaluateRewardConfig, "training.md", "evaluate_reward"),
    (configs.SftConfig, "policies.md", "sft"),
    (configs.DpoConfig, "policies.md", "dpo"),
    (configs.PpoConfig, "policies.md", "ppo"),
    (configs.SampleConfig, "sampling.md", "sample"),
    (configs.EvaluatePolicyConfig, "sampling.md", "evaluate_policy"),
]


#: Variables that we read: `env.text("NAME")`, `os.environ["NAME"]`, `"NAME" in os.environ`, `${NAME}`.
READ = re.compile(
    r"""\benv\.\w+\(\s*"([A-Z][A-Z0-9_]+)"
    |environ(?:\.\w+)?[\[(]\s*"([A-Z][A-Z0-9_]+)"|"([A-Z][A-Z0-9_]+)"\s+(?:not\s+)?in\s+os\.environ
    |"((?:PLACKETT|DATABASE|REDIS)_[A-Z0-9_]+)"|\$\{(PLACKETT_[A-Z0-9_]+)""",
    re.VERBOSE,
)
#: Every program's, or set by what starts us: torchrun, pytest, Django's commands; and what our tests tell one another.
OF_OTHERS = {
    "PATH", "HOME", "TMPDIR", "RANK", "LOCAL_RANK", "WORLD_SIZE", "DJANGO_SETTINGS_MODULE",
    "DJANGO_ALLOW_ASYNC_UNSAFE", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PLACKETT_TEST_TEMPLATE",
}  # fmt: skip
SOURCES = (
    "annotate/**/*.py", "training/**/*.py", "webapp/**/*.py", "plackett/*.py", "tools/**/*.py", "tests/[!t]*.py",
    "tests/browser/*.py", "docker-compose*.yml", "Makefile",
)  # fmt: skip


def test_every_setting_is_documented_and_no_other() -> None:
    names = {name for found in READ.findall(_read(*SOURCES)) for name in found if name} - OF_OTHERS
    assert len(names) > 50
    documented = _page("settings")
    assert sorted(name for name in names if f"`{name}`" not in documented) == []
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \|", documented, re.MULTILINE)
    assert sorted(set(rows) - names) == [], "nobody reads these"


def test_every_secret_that_may_come_from_a_file_is_documented_so() -> None:
    private = set(re.findall(r'\b(?:private|secret)\(\s*"(\w+)"', _read("webapp/**/*.py", "training/**/*.py")))
    assert len(private) > 6
    documented = _page("settings")
    assert sorted(name for name in private if f"`{name}_FILE`" not in documented) == []


def _commands() -> dict[str, argparse.ArgumentParser]:
    """What can be typed: of manage.py what is ours, and the words of `plackett`."""
    found = {
        f"manage.py {name}": load_command_class(app, name).create_parser("manage.py", name)
        for name, app in get_commands().items()
        if str(app).partition(".")[0] in ("annotate", "training", "webapp")
    }
    return found | {f"plackett {name}": one for name, one in _words(cli.parser()).items()} | {"plackett": cli.parser()}


def _words(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (words,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    return dict(words.choices)


COMMANDS = _commands()
#: What every command of manage.py takes.
USUAL = {flag for one in BaseCommand().create_parser("manage.py", "x")._actions for flag in one.option_strings}


def test_every_command_is_documented_and_no_other() -> None:
    documented = re.findall("^##+ `((?:manage.py|plackett).*)`$", _page("commands"), re.MULTILINE)
    assert len(documented) > 20 and sorted(documented) == sorted(COMMANDS.keys() | {"manage.py"})


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_of_a_command_is_documented_and_no_other(name: str) -> None:
    part = re.split("^##+ ", _page("commands").partition(f"## `{name}`\n")[2], flags=re.MULTILINE)[0]
    rows = {row.split("`")[1].split()[0]: row for row in part.splitlines() if row.startswith("| `")}
    actions = [one for one in COMMANDS[name]._actions if not isinstance(one, argparse._SubParsersAction)]
    taken = {one.option_strings[-1]: one for one in actions if one.option_strings}
    usual = USUAL if name.startswith("manage.py") else {"--help"}
    assert {flag for flag in rows if flag.startswith("-")} == set(taken) - usual
    assert len(rows.keys() - set(taken)) == len([one for one in actions if not one.option_strings])
    for flag in rows.keys() & set(taken):
        values = () if flag == "--format" else taken[flag].choices or ()
        assert [one for one in values if not re.search(rf"\b{one}\b", rows[flag])] == [], flag


def test_every_target_of_make_and_every_part_of_the_stack_is_documented() -> None:
    targets = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split()
    parts = _words(stack.parser())
    assert len(targets) > 5 and len(parts) > 3
    wanted = [f"| `make {target}` |" for target in targets] + [f"| `{part}" for part in parts]
    assert [row for row in wanted if row not in _page("commands")] == []


DOCUMENT = SchemaGenerator().get_schema(request=None, public=True)


def _resolved(one: dict[str, Any]) -> dict[str, Any]:
    """What stands in the place that is named, or the thing itself."""
    found: Any = DOCUMENT if "$ref" in one else one
    for name in one["$ref"].split("/")[1:] if "$ref" in one else ():
        found = found[name]
    return dict(found)


def _taken(operation: dict[str, Any]) -> set[str]:
    """Query parameters of an operation, and fields of its body."""
    fields = [_resolved(body["schema"]) for body in operation.get("requestBody", {}).get("content", {}).values()]
    parameters = [_resolved(one) for one in operation.get("parameters", ())]
    asked = {one["name"] for one in parameters if one["in"] == "query"}
    return asked.union(*(one.get("properties", {}) for one in fields))


def _end(name: str) -> str:
    """How the address of a list ends, as its table names it: whole, or from a … on."""
    return name.removeprefix("…") if name.startswith("…") else f"/v1/{name}"


def test_every_parameter_and_field_that_the_api_takes_is_in_the_references_part_about_it() -> None:
    everywhere = _page("api").partition("## What holds everywhere")[2].partition("\n## ")[0]
    reference = re.sub(r"\{\w+\}", "{}", _page("api-reference"))
    parts = [part + everywhere for part in reference.split("\n## ")]
    lists = {_end(row.split("`")[1]): row for row in reference.splitlines() if re.match(r"\| `[^`]*/` \|", row)}
    missing, seen = [], 0
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            where = f"{method.upper()} {re.sub(r'{[^}]*}', '{}', path)}"
            told = "".join(part for part in parts if where in part)
            told += "".join(row for name, row in lists.items() if where.endswith(name) and where.startswith("GET"))
            missing += [(where, name) for name in _taken(operation) if not re.search(rf"[`?&\"]{name}\b", told)]
            seen += len(_taken(operation))
    assert seen > 100
    assert sorted(missing) == []


def test_every_event_of_webhooks_is_documented_and_no_other() -> None:
    rows = [row for row in _page("webhooks").splitlines() if row.startswith("| `")]
    documented = {event for row in rows for event in re.findall("`([^`]+)`", row.split("|")[1])}
    assert documented == {*Webhook.Event.values, "ping"}


def test_every_recipe_has_its_flags_documented() -> None:
    assert {config for config, _page, _title in RECIPES} == set(configs.RECIPES.values())


@pytest.mark.parametrize(("config", "page", "title"), RECIPES)
def test_every_flag_of_a_recipe_is_documented_with_its_default(
    config: type[configs.BaseConfig], page: str, title: str
) -> None:
    """In the recipe's own table, or in that of the flags that all training recipes share."""
    own = (
        (ROOT / "docs" / page).read_text().partition(f"## Flags of `training.recipes.{title}`")[2].partition("\n## ")[0]
    )
    shared = (ROOT / "docs" / "training.md").read_text()
    for description in configs.describe(config):
        rows = [row for row in f"{own}\n{shared}".splitlines() if row.startswith(f"| `{description.flag}` |")]
        assert rows and description.help in rows[0], description.flag
        assert description.default in (None, False, ()) or f"`{description.default}`" in rows[0], description.flag


def _example_of(heading: str) -> str:
    """The first fenced block under a heading of docs/formats.md."""
    part = _page("formats").partition(f"### {heading}\n")[2].partition("\n#")[0]
    assert part, heading
    return part.partition("```\n")[2].partition("\n```")[0]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_that_is_read_is_documented_with_an_example_that_reads(name: str) -> None:
    example = _example_of(f"Reading `{name}`").encode()
    if name == "parquet":  # what stands in a file cannot be shown; its columns are those of the CSV
        return
    found = list(read_file(name, io.BytesIO(example)))
    assert found and all(isinstance(one, ImportedRecord) for one in found), found


@pytest.mark.parametrize("name", EXPORTS)
def test_every_format_that_is_written_is_documented_with_what_it_writes(name: str) -> None:
    page = _page("formats")
    native = page.partition("## Formats that are written")[2].partition("```\n")[2].partition("\n```")[0]
    first = b"".join(export_lines(name, [json.loads(native)])).decode().splitlines()[0]
    assert first == (native if name == "plackett" else _example_of(f"Writing `{name}`"))


def test_every_option_and_every_field_of_a_table_is_documented() -> None:
    page = _page("formats")
    rows = {row.split("|")[1].strip(" `"): row for row in page.splitlines() if row.startswith("| `")}
    for option in OPTIONS:
        assert option.name in rows and all(f"`{value}`" in rows[option.name] for value in option.values), option.name
        assert not option.default or f"`{option.default}`" in rows[option.name], option.name
        takes = {name for name, format in EXPORTS.items() if option.name in format.options}
        named = rows[option.name].split("|")[4].strip()
        pairs = {name for name in EXPORTS if EXPORTS[name].line is not None}
        assert takes == {"all": {*EXPORTS}, "pairs": pairs}.get(named, set(re.findall("`([^`]+)`", named))), option.name
    columns = page.partition("## Columns of tables")[2].partition("\n## ")[0] + (ROOT / "docs" / "data.md").read_text()
    every = {field for format in FORMATS.values() for field in format.fields}
    assert sorted(field for field in every if not re.search(rf"\b{re.sub('_[2-9]$', '_1', field)}\b", columns)) == []


PAGES = sorted(str(path.relative_to(ROOT)) for pattern in ("*.md", "docs/*.md") for path in ROOT.glob(pattern))


def _anchors(path: Path) -> set[str]:
    """The headings of a page as links name them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", path.read_text()):
        found = path.parent / target if target else path
        assert found.exists(), target
        assert not anchor or anchor in _anchors(found), f"{target}#{anchor}"


def test_every_benchmark_module_says_how_to_run_it() -> None:
    modules = [
        path for path in (ROOT / "benchmarks").glob("*.py") if path.stem not in HELPERS | {"__init__", "__main__"}
    ]
    assert modules
    assert [path.name for path in modules if f"python -m benchmarks.{path.stem}" not in path.read_text()] == []
