"""``DIR/report.html``: a run's report as one page that needs nothing else, for those without the web application."""

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from training.core.report_parts import Part, parts_of
from training.core.report_words import Fact, Figure, Table
from training.core.svg import standalone
from training.core.wording import ENGLISH

REPORT_PAGE_NAME, PLOTS_NAME = "report.html", "plots"

_STYLE = """
:root { color-scheme: light dark; --paper: light-dark(#fbfaf8, #161513); --card: light-dark(#fff, #1f1e1b);
  --ink: light-dark(#1d1c1a, #ece8e1); --soft: light-dark(#67635d, #a8a298); --line: light-dark(#e5e1da, #35322d);
  --edge: light-dark(#8f8a81, #7b756b); --accent: light-dark(#2f5bd3, #8eaaff);
  --accent-soft: light-dark(#e9eefc, #26304c); --two: light-dark(#b4541a, #f0a070);
  --warn: light-dark(#8a5a00, #e0b060); }
* { box-sizing: border-box; }
body { max-width: 1200px; margin: 0 auto; padding: 24px; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 24px; } h2 { margin-top: 40px; font-size: 20px; } h3 { font-size: 16px; margin: 0; }
.soft, figcaption, dd p { color: var(--soft); font-size: 14px; }
.warnings { padding: 4px 16px 4px 32px; border-left: 3px solid var(--warn); }
.main { display: flex; flex-wrap: wrap; gap: 8px 40px; margin: 16px 0; } .main b { display: block; font-size: 24px; }
.main small { color: var(--soft); font-size: 14px; }
.plots { display: grid; gap: 16px; align-items: start; }
@media (min-width: 1000px) { .plots { grid-template-columns: repeat(3, minmax(0, 1fr)); } }
figure { margin: 0; padding: 12px 16px; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
svg { display: block; width: 100%; max-width: 440px; height: auto; margin: 8px auto; }
svg text { font-size: 11px; fill: var(--soft); } svg .name { fill: var(--ink); }
svg .heading { fill: var(--ink); font-weight: 600; }
.axis { stroke: var(--line); fill: none; } .dashed { stroke: var(--edge); stroke-dasharray: 3 4; fill: none; }
.curve { stroke: var(--accent); fill: none; stroke-width: 2; }
.curve.two { stroke: var(--two); stroke-width: 1.5; stroke-dasharray: 4 4; }
.curve.most { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 1 4; stroke-linecap: round; }
.dot { fill: var(--accent); } .whisker { stroke: var(--accent); stroke-width: 1.5; }
.rule { fill: var(--card); stroke: var(--two); stroke-width: 1.5; }
.bar { fill: var(--accent-soft); stroke: var(--accent); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 16px 32px;
  margin: 24px 0 0; }
dt { font-weight: 600; } dd { margin: 0; } dd p { margin: 0; }
summary { margin-top: 24px; font-weight: 600; cursor: pointer; }
.scroll { max-width: 860px; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: 4px 0 0; font-size: 14px; }
details h3 { margin-top: 24px; } details p { margin: 0; }
th, td { padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child { min-width: 112px; text-align: left; white-space: normal; overflow-wrap: anywhere; }
th { font-weight: 500; }
"""


def write_report_files(folder: Path, report: Mapping[str, Any], *, title: str) -> None:
    """Write ``report.html`` and ``plots/PART-NAME.svg`` into a run's folder."""
    (folder / REPORT_PAGE_NAME).write_text(report_html(report, title=title), encoding="utf-8")
    plots = folder / PLOTS_NAME
    plots.mkdir(exist_ok=True)
    for part in parts_of(report):
        for plot in part.plots:
            name = f"{part.key}-{plot.kind.replace('_', '-')}.svg"
            (plots / name).write_text(standalone(plot.svg), encoding="utf-8")


def report_html(report: Mapping[str, Any], *, title: str) -> str:
    """The page: warnings first, then part by part the main figures, plots, the other figures, and tables.

    Nothing is loaded from elsewhere and no script runs; whatever comes from the data is escaped.
    """
    body = [f"<h1>{escape(title)}</h1>", _counts(report), _warnings(report.get("warnings") or ())]
    body += map(_part, parts_of(report))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _counts(report: Mapping[str, Any]) -> str:
    counts = report.get("counts") or {}
    if not counts:
        return ""
    words = [f"{ENGLISH.count(counts['used'])} of {ENGLISH.count(counts['read'])} records used"]
    words += [f"{ENGLISH.count(count)} dropped ({why})" for why, count in (counts.get("dropped") or {}).items()]
    return f'<p class="soft">{escape("; ".join(words))}.</p>'


def _warnings(warnings: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<ul class="warnings" aria-label="Warnings">{items}</ul>' if items else ""


def _part(part: Part) -> str:
    plots = "".join(
        f"<figure><h3>{escape(plot.title)}</h3>{plot.svg}<figcaption>{escape(plot.note)}</figcaption></figure>"
        for plot in part.plots
    )
    parts = [
        f"<h2>{escape(part.title)}</h2>",
        f'<div class="main">{"".join(map(_figure, part.figures))}</div>',
        f'<div class="plots">{plots}</div>' if plots else "",
        f"<dl>{''.join(map(_fact, part.facts))}</dl>" if part.facts else "",
        f"<details><summary>All figures</summary>{''.join(map(_table, part.tables))}</details>" if part.tables else "",
    ]
    return "<section>\n" + "\n".join(part for part in parts if part) + "\n</section>"


def _figure(figure: Figure) -> str:
    note = f"<small>{escape(figure.note)}</small>" if figure.note else ""
    return f"<div>{escape(figure.name)}<b>{escape(figure.value)}</b>{note}</div>"


def _fact(fact: Fact) -> str:
    return f"<div><dt>{escape(fact.name)}</dt><dd>{escape(fact.value)}<p>{escape(fact.meaning)}</p></dd></div>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.head)
    rows = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in table.rows
    )
    name = escape(table.title)
    return (
        f'<h3>{name}</h3><p class="soft">{escape(table.note)}</p>'
        f'<div class="scroll" tabindex="0" role="group" aria-label="{name}">'
        f'<table aria-label="{name}"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )
