"""The elements that the plots of a report are drawn from, as texts of SVG; every text in them is escaped here.

Colours come from classes: of the stylesheet of the page that a plot stands in, or of ``STYLE`` in a file of its own.
Standard library only: pages import this without loading torch.
"""

from collections.abc import Iterable
from html import escape

# Units of the drawing; between LEFT and RIGHT lies what is plotted.
WIDTH = 360
LEFT, RIGHT = 44, 350

STYLE = """
svg { background: #fbfaf8; font: 11px system-ui, sans-serif; }
text { fill: #67635d; } .name { fill: #1d1c1a; } .heading { fill: #1d1c1a; font-weight: 600; }
.axis { stroke: #e5e1da; fill: none; } .dashed { stroke: #8f8a81; stroke-dasharray: 3 4; fill: none; }
.curve { stroke: #2f5bd3; fill: none; stroke-width: 2; stroke-linejoin: round; }
.curve.two { stroke: #b4541a; stroke-width: 1.5; stroke-dasharray: 4 4; }
.curve.most { stroke: #67635d; stroke-width: 1.5; stroke-dasharray: 1 4; stroke-linecap: round; }
.dot { fill: #2f5bd3; } .whisker { stroke: #2f5bd3; stroke-width: 1.5; fill: none; }
.rule { fill: #fbfaf8; stroke: #b4541a; stroke-width: 1.5; } .bar { fill: #e9eefc; stroke: #2f5bd3; }
@media (prefers-color-scheme: dark) {
  svg { background: #161513; }
  text { fill: #a8a298; } .name, .heading { fill: #ece8e1; }
  .axis { stroke: #35322d; } .dashed { stroke: #7b756b; }
  .curve, .whisker { stroke: #8eaaff; } .curve.two { stroke: #f0a070; } .curve.most { stroke: #a8a298; }
  .dot { fill: #8eaaff; } .rule { fill: #161513; stroke: #f0a070; } .bar { fill: #26304c; stroke: #8eaaff; }
}
"""


def standalone(plot: str) -> str:
    """The plot as a file of its own."""
    head, rest = plot.split(">", 1)
    height = head.split('viewBox="')[1].split('"')[0].split()[3]
    return f'{head} width="{2 * WIDTH}" height="{2 * int(height)}"><style>{STYLE}</style>{rest}\n'


def drawing(identity: str, title: str, told: Iterable[str], marks: Iterable[str], height: float) -> str:
    """A whole plot, with its title and what it shows for those who do not see it; ``identity`` begins its ids."""
    begin = escape(identity)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-labelledby="{begin}-title {begin}-desc"><title id="{begin}-title">{escape(title)}</title>'
        f'<desc id="{begin}-desc">{escape(" ".join(told))}</desc>{"".join(marks)}</svg>'
    )


def path(kind: str, course: str) -> str:
    """A path of a class."""
    return f'<path class="{kind}" d="{course}"/>'


def line(points: Iterable[tuple[float, float]]) -> str:
    """The course of a path through points, straight from one to the next."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def dot(x: float, y: float) -> str:
    """A point of the first series."""
    return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'


def diamond(x: float, y: float) -> str:
    """A point of the second series: told apart by its shape, too."""
    return path("rule", f"M{x:.1f} {y - 4.5:.1f}l4.5 4.5l-4.5 4.5l-4.5 -4.5z")


def text(x: float, y: float, words: str, anchor: str, kind: str = "") -> str:
    """Words at a place, escaped."""
    of_kind = f' class="{kind}"' if kind else ""
    return f'<text{of_kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
