"""Documentation that cannot fall behind: every setting, command and flag is written down."""

import io
import json
import re
from pathlib import Path

import pytest

from annotate.interchange import EXPORTS, FORMATS, export_lines, read_file
from annotate.interchange.options import OPTIONS
from annotate.interchange.records import ImportedRecord
from benchmarks.__main__ import HELPERS
from training.recipes import configs

ROOT = Path(__file__).resolve().parent.parent


def _read(*globs: str) -> str:
    files = [path for pattern in globs for path in ROOT.glob(pattern)]
    assert files, globs
    return "\n".join(path.read_text() for path in files)


def test_every_setting_is_documented() -> None:
    sources = _read("webapp/*.py", "webapp/stack/*.py", "training/core/*.py", "training/runner/*.py")
    names = set(re.findall(r'"(PLACKETT_[A-Z0-9_]+|DATABASE_URL|REDIS_URL)"', sources))
    assert len(names) > 8
    documented = (ROOT / "docs" / "settings.md").read_text()
    assert sorted(name for name in names if f"`{name}`" not in documented) == []


def test_every_management_command_is_documented() -> None:
    commands = [
        path.stem
        for app in ("annotate", "training")
        for path in (ROOT / app / "management" / "commands").glob("[a-z]*.py")
    ]
    assert len(commands) > 3
    documented = _read("README.md", "docs/*.md")
    assert sorted(name for name in commands if f"manage.py {name}" not in documented) == []


@pytest.mark.parametrize(
    ("config", "page", "title"),
    [
        (configs.RewardConfig, "training.md", "reward"),
        (configs.EvaluateRewardConfig, "training.md", "evaluate_reward"),
        (configs.SftConfig, "policies.md", "sft"),
        (configs.DpoConfig, "policies.md", "dpo"),
        (configs.PpoConfig, "policies.md", "ppo"),
        (configs.SampleConfig, "sampling.md", "sample"),
        (configs.EvaluatePolicyConfig, "sampling.md", "evaluate_policy"),
    ],
)
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
    part = (ROOT / "docs" / "formats.md").read_text().partition(f"### {heading}\n")[2].partition("\n#")[0]
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
    page = (ROOT / "docs" / "formats.md").read_text()
    native = page.partition("## Formats that are written")[2].partition("```\n")[2].partition("\n```")[0]
    first = b"".join(export_lines(name, [json.loads(native)])).decode().splitlines()[0]
    assert first == (native if name == "plackett" else _example_of(f"Writing `{name}`"))


def test_every_option_and_every_field_of_a_table_is_documented() -> None:
    page = (ROOT / "docs" / "formats.md").read_text()
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


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/decisions.md", "docs/formats.md", "docs/data.md"]
)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    path = ROOT / page
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_every_benchmark_module_says_how_to_run_it() -> None:
    modules = [
        path for path in (ROOT / "benchmarks").glob("*.py") if path.stem not in HELPERS | {"__init__", "__main__"}
    ]
    assert modules
    assert [path.name for path in modules if f"python -m benchmarks.{path.stem}" not in path.read_text()] == []
