"""``--reward KIND[:ARG][*WEIGHT]``: where an argument ends and a weight begins, and names that tell sources apart."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from training.core.errors import UsageError
from training.core.reward_sources.grammar import KINDS, names_of, parse_reward


@pytest.mark.parametrize(
    ("text", "kind", "argument", "weight"),
    [
        ("exact", "exact", "", 1.0),
        ("exact*2", "exact", "", 2.0),
        ("exact:case*0.5", "exact", "case", 0.5),
        ("model:runs/a", "model", "runs/a", 1.0),
        ("model:runs/a*-0.25", "model", "runs/a", -0.25),
        ("model:owner/name*1e-2", "model", "owner/name", 0.01),
        ("model:C:/models/a*3.", "model", "C:/models/a", 3.0),
        ("numeric*0", "numeric", "", 0.0),
        ("python:pkg.mod.func*+2", "python", "pkg.mod.func", 2.0),
        ("tests:share*2", "tests", "share", 2.0),
        # Patterns: colons and stars are theirs, but for a star with a number at the very end.
        ("regex:a:b", "regex", "a:b", 1.0),
        ("regex:a*", "regex", "a*", 1.0),
        ("regex:a*b*2", "regex", "a*b", 2.0),
        ("regex:a*2", "regex", "a", 2.0),
        ("regex:a*2*1", "regex", "a*2", 1.0),
        (r"regex:3\*2", "regex", r"3\*2", 1.0),
        (r"regex:3\*2*4", "regex", r"3\*2", 4.0),
        (r"regex:\\*2", "regex", r"\\", 2.0),
        (r"regex:\d*.5", "regex", r"\d*.5", 1.0),
        (r"regex:\d*5$", "regex", r"\d*5$", 1.0),
        ("regex:a* 2", "regex", "a* 2", 1.0),
        ("regex:a*2\n", "regex", "a*2\n", 1.0),
        ("regex:a*nan", "regex", "a*nan", 1.0),
        ("regex:a*٣", "regex", "a*٣", 1.0),
        ("regex:*2*3", "regex", "*2", 3.0),
    ],
)
def test_only_a_star_with_a_number_at_the_very_end_is_a_weight(
    text: str, kind: str, argument: str, weight: float
) -> None:
    spec = parse_reward(text)
    assert (spec.kind, spec.argument, spec.weight, spec.text) == (kind, argument, weight, text)


@pytest.mark.parametrize(
    ("text", "folder", "spread", "weight"),
    [
        ("ensemble:runs/a", "runs/a", 1.0, 1.0),
        ("ensemble:runs/a,0.5", "runs/a", 0.5, 1.0),
        ("ensemble:runs/a,0*2", "runs/a", 0.0, 2.0),
        ("ensemble:runs/a,b", "runs/a,b", 1.0, 1.0),
        ("ensemble:runs/a,2,1", "runs/a,2", 1.0, 1.0),
    ],
)
def test_the_spread_of_an_ensemble_stands_behind_the_last_comma(
    text: str, folder: str, spread: float, weight: float
) -> None:
    spec = parse_reward(text)
    assert (spec.argument, spec.spread, spec.weight) == (folder, spread, weight)


def test_a_tolerance_is_a_number() -> None:
    assert parse_reward("numeric").tolerance is None
    assert parse_reward("numeric:0.01*2").tolerance == 0.01


@pytest.mark.parametrize(
    "text",
    ["", "model", "model:", "model:*2", "judge", "exact*inf", "exact*1e999", "exact:fuzzy", "regex", "python:func"]
    + ["python:a.b-c", "python:a..b", "python:.b", "python:a.2b", "numeric:x", "numeric:-1", "numeric:nan"]
    + ["numeric:inf", "format:xml", "tests:most", "*2", "Exact", " exact"],
)
def test_what_is_not_of_the_grammar_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_reward(text)
    assert f"--reward {text}:" in str(error.value)


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["model:runs/a", "exact", "format*0.1"], ["model", "exact", "format"]),
        (["model:runs/helpful/model", "model:runs/harmless/"], ["model-helpful", "model-harmless"]),
        (["model:a/x", "model:b/x", "model:c/x"], ["model-x", "model-x-2", "model-x-3"]),
        (["regex:^A", r"regex:\d+"], ["regex-A", "regex-d"]),
        (["regex:!", "regex:?!"], ["regex", "regex-2"]),
        (["exact", "exact:case"], ["exact", "exact-case"]),
        (["python:my.rewards.brevity"], ["python-brevity"]),
        # A name that a number would make a second time.
        (["model:b/x", "model:c/x-2", "model:d/x"], ["model-x", "model-x-2", "model-x-3"]),
    ],
)
def test_names_are_short_and_no_two_alike(texts: list[str], names: list[str]) -> None:
    assert names_of([parse_reward(text) for text in texts]) == names


def test_the_grammar_needs_no_torch() -> None:
    code = "import sys, training.core.reward_sources.grammar; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_examples_of_the_documentation_are_of_the_grammar() -> None:
    page = (Path(__file__).parents[4] / "docs" / "rewards.md").read_text(encoding="utf-8")
    table = [row.split("|")[1] for row in page.splitlines() if row.startswith("| `")]
    flags = [flag for cell in table for flag in re.findall("`(.+?)`", cell)]
    flags += [flag.strip("'") for flag in re.findall(r"--reward ('[^']+'|[a-z][\w:./,*]+)", page)]
    assert {parse_reward(flag).kind for flag in flags} == set(KINDS)
    assert {parse_reward(flag).weight for flag in flags} >= {1.0, -0.5, 0.2, 0.5}
