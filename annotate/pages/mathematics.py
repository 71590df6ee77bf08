r"""LaTeX in markdown: `\(…\)`, `\[…\]` and `\begin{align}…\end{align}` beside the dollars, all turned into MathML.

The searches for an end are bounded, so that a text of nothing but beginnings costs no more than any other.
"""

import re
from typing import Final

import latex2mathml.converter
from django.utils.html import escape
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from mdit_py_plugins.dollarmath import dollarmath_plugin

MAX_LATEX_CHARACTERS: Final = 2_000
MAX_LATEX_LINES: Final = 60
_ENDS: Final = {"\\(": "\\)", "\\[": "\\]"}
_ENVIRONMENT = re.compile(r"\\begin\{((?:align|aligned|equation|gather|cases|[pbvBV]?matrix)\*?)\}")
_BOUNDS = re.compile(r"(?<=n\{|d\{)(align|aligned|equation|gather)\*?(?=\})")
#: What the converter numbers or does not know, by what it shows as meant.
_SHOWN_AS: Final = {"align": "align*", "aligned": "split", "equation": "split", "gather": "split"}


def mathematics_plugin(markdown: MarkdownIt) -> None:
    """Teaches the parser all notations of formulas; tokens are `math_inline`, `math_inline_double` and `math_block`."""
    dollarmath_plugin(markdown, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True)
    markdown.inline.ruler.before("escape", "math_brackets", _inline_brackets)
    interrupts = ["paragraph", "reference", "blockquote", "list"]
    markdown.block.ruler.before("fence", "math_environment", _block, {"alt": interrupts})


def to_mathml(latex: str, *, display: bool) -> str:
    """The formula as MathML, not yet sanitised; as its own source where the converter cannot read it."""
    source = f'<span class="formula">{escape(latex)}</span>'
    if len(latex) > MAX_LATEX_CHARACTERS:
        return source
    try:
        plain = _BOUNDS.sub(lambda found: _SHOWN_AS[found[1]], latex)
        return str(latex2mathml.converter.convert(plain, display="block" if display else "inline"))
    except Exception:  # whatever the converter trips over, the reader sees what was written
        return source


def _inline_brackets(state: StateInline, silent: bool) -> bool:
    opening = state.src[state.pos : state.pos + 2]
    closing = _ENDS.get(opening)
    if closing is None:
        return False
    start = state.pos + 2
    end = state.src.find(closing, start, min(start + MAX_LATEX_CHARACTERS, state.posMax))
    if end <= start:
        return False
    if not silent:
        token = state.push("math_inline" if opening == "\\(" else "math_inline_double", "math", 0)
        token.content = state.src[start:end].strip()
    state.pos = end + 2
    return True


def _block(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    if state.is_code_block(first):
        return False
    line = _line(state, first)
    environment = _ENVIRONMENT.match(line)
    if environment is None and not line.startswith("\\["):
        return False
    closing = f"\\end{{{environment[1]}}}" if environment else "\\]"
    lines: list[str] = []
    for number in range(first, min(last, first + MAX_LATEX_LINES)):
        lines.append(_line(state, number))
        if lines[-1].rstrip().endswith(closing):
            break
    else:
        return False
    if silent:
        return True
    text = "\n".join(lines).strip()
    token = state.push("math_block", "math", 0)
    token.content = text if environment else text[2:-2].strip()
    token.block = True
    token.map = [first, first + len(lines)]
    state.line = first + len(lines)
    return True


def _line(state: StateBlock, number: int) -> str:
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]]
