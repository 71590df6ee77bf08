"""The page in the run's folder: one file that needs nothing else, hostile names and old reports included."""

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.core.judged import random_split
from tests.training.core.test_plots import OLD
from training.core.evaluation import evaluate
from training.core.report_page import report_html, write_report_files
from training.core.report_words import facts_of, run_facts, run_tables, tables_of
from training.core.wording import Wording, part_name

HOSTILE = '<script>alert("x")</script>'


class Read(HTMLParser):
    """The tags of a page, in order, and whether every one is closed by its own kind."""

    VOID = frozenset({"meta", "path", "circle"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


class Inside(HTMLParser):
    """The tags inside the element of class ``plots``."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.depth, self.found = 0, list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.depth:
            self.found.append(tag)
        self.depth += tag == "div" and (self.depth > 0 or dict(attrs).get("class") == "plots")

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag == "div" and self.depth > 0


def davidson(margin: Any) -> Any:
    logits = np.stack([margin / 2, np.full(len(margin), math.log(0.6)), -margin / 2], axis=1)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    data, scores = random_split(40)
    names = [HOSTILE, *(f"annotator {number}" for number in range(1, 8))]
    section = evaluate(data, scores, seed=0, annotators=names, outcome_log_probabilities=davidson)
    counts = {"read": 1200, "used": 80, "dropped": {"too_long": 3}}
    return {"kind": "reward", "counts": counts, "validation": section, "warnings": [f"Look at {HOSTILE}."]}


def test_the_page_is_whole_needs_nothing_else_and_runs_nothing(report: dict[str, Any]) -> None:
    page = Read(report_html(report, title=f"Model {HOSTILE}"))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("svg") == 3 and tags.count("html") == 1
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(tags)
    for _, attributes in page.tags:
        assert not {"src", "href", "style"} & attributes.keys()
        assert not any(name.startswith("on") for name in attributes)
    text = "".join(page.text)
    assert text.count(HOSTILE) >= 3  # title, heading, warning, the table of annotators: as text
    assert "1,200" in text and "too_long" in text
    assert "annotator 3" in text


def test_every_figure_is_told_with_what_it_is(report: dict[str, Any]) -> None:
    section = report["validation"]
    facts = {fact.name: fact for fact in facts_of(section)}
    assert len(facts) == 10
    assert all(fact.value and fact.meaning for fact in facts.values())
    ceiling = section["ceiling"]
    assert facts["agreement of two annotators"].value.startswith(f"{ceiling['two_annotators']['value'] * 100:.1f}")
    assert f"{ceiling['pairs']} pairs of {ceiling['tasks']} tasks" in facts["agreement of two annotators"].meaning
    assert facts["log-loss"].value.startswith(f"{section['log_loss']:.3f} (")
    assert facts["score and length"].value.startswith(
        f"{section['score_length']['spearman']['value']:.3f}".replace("-", "−")
    )
    tables = {table.title: table for table in tables_of(section)}
    assert len(tables) == 7
    for table in tables.values():
        assert table.rows and all(len(row) == len(table.head) for row in table.rows)
    assert len(tables["Best of n"].rows) == section["best_of_n"]["placed"]


def test_without_a_second_annotator_the_ceiling_says_why(report: dict[str, Any]) -> None:
    alone = {**report["validation"]["ceiling"], "two_annotators": None, "reason": "no task was ranked by two people"}
    facts = {fact.name: fact for fact in facts_of({**report["validation"], "ceiling": alone})}
    assert facts["agreement of two annotators"].value == "unknown"
    assert facts["agreement of two annotators"].meaning == "No task was ranked by two people."
    assert "the model on those pairs" not in facts


def test_an_old_report_still_has_a_page(report: dict[str, Any]) -> None:
    old = {"validation": {name: report["validation"][name] for name in OLD}, "warnings": []}
    page = Read(report_html(old, title="Old"))
    assert "svg" not in [tag for tag, _ in page.tags]
    assert f"{old['validation']['log_loss']:.3f}" in "".join(page.text)
    Read(report_html({"validation": evaluate([], [], seed=0)}, title="Empty"))


def test_what_is_of_the_model_stands_once_and_only_where_it_is_known(report: dict[str, Any]) -> None:
    more = {
        "test": report["validation"],
        "kept_step": 1200,
        "score_scale": {"mean": -1.4331, "std": 1.0964, "responses_of_prompts": 40},
        "thresholds": {"eta_1": 0.31864, HOSTILE: 1.25},
    }
    (fact,) = run_facts(more)
    assert (fact.name, fact.value) == ("weights of step", "1,200")
    tables = {table.title: table.rows for table in run_tables(more)}
    assert tables["Scale of the scores"] == (("mean", "−1.433"), ("standard deviation", "1.096"))
    assert tables["Thresholds"] == (("eta_1", "0.319"), (HOSTILE, "1.250"))
    text = "".join(Read(report_html(report | more, title="Run 3")).text)
    assert all(text.count(words) == 1 for words in ("weights of step", "Scale of the scores", "0.319", "1.250"))
    assert run_facts({"kept_step": None}) == run_tables({"thresholds": {}}) == []
    assert not {"weights of step", "Thresholds"} & set(Read(report_html(report, title="Run 3")).text)


def test_the_figures_have_the_whole_width_under_the_plots(report: dict[str, Any]) -> None:
    reading = Inside(report_html(report, title="Run 3"))
    assert reading.found.count("figure") == 3 and "dl" not in reading.found


def test_the_files_of_a_run(report: dict[str, Any], tmp_path: Path) -> None:
    # as it is read back from report.json
    write_report_files(tmp_path, json.loads(json.dumps({**report, "test": report["validation"]})), title="Run 3")
    write_report_files(tmp_path, report, title="Run 3")  # again, as after a resume
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == [
        "plots/test-best-of-n.svg",
        "plots/test-calibration.svg",
        "plots/test-parts.svg",
        "plots/validation-best-of-n.svg",
        "plots/validation-calibration.svg",
        "plots/validation-parts.svg",
        "report.html",
    ]


def test_numbers_in_words() -> None:
    words = Wording()
    assert (words.count(1234567), words.points(-0.0314), words.number(-0.5)) == ("1,234,567", "−3.1", "−0.500")
    assert [words.few_digits(number) for number in (7, 999, 1000, 1999, 54321, 3_400_000)] == [
        "7",
        "999",
        "1.0k",
        "2.0k",
        "54k",
        "3.4M",
    ]
    assert [part_name("placed", {"of": of}) for of in (1, 2)] == ["1 response", "2 responses"]
    assert words.interval({"value": 0.5, "low": None, "high": None}) == "50.0\xa0%"
    assert words.interval({"value": None, "low": None, "high": None}) == words.interval(None) == "–"
