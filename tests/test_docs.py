"""Documentation that cannot fall behind: every setting, command and flag is written down."""

import re
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/decisions.md"])
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
