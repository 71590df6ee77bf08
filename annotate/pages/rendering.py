"""Texts that models and strangers wrote, as HTML that is safe to show: markdown, code colours, mathematics, tables.

Everything happens on the server. Raw HTML in a text is shown as text; what the renderer makes is cleaned once more
against an allow-list; nothing is fetched (no images); links open elsewhere and carry no weight.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from typing import Final, cast

import nh3
from django.core.cache import cache
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES
from pygments.util import ClassNotFound

from annotate.pages.mathematics import mathematics_plugin, to_mathml
from annotate.rendered import cache_key

CACHE_SECONDS: Final = 7 * 24 * 3600
MAX_MARKDOWN_CHARACTERS: Final = 200_000
MAX_CODE_CHARACTERS: Final = 50_000
#: Texts nested deeper are shown as plain text: the parser would silently drop what lies below its limit.
MAX_NESTING: Final = 32
FIRST_HEADING_LEVEL: Final = 3


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


HTML_TAGS: Final = _names("""
    p br hr h3 h4 h5 h6 strong em s code pre blockquote ul ol li a span div table thead tbody tr th td
""")
MATHML_TAGS: Final = _names("""
    math mrow mi mn mo mtext mspace ms msub msup msubsup mfrac msqrt mroot mover munder munderover mmultiscripts
    mprescripts none mtable mtr mtd mstyle mpadded mphantom menclose mfenced
""")
MATHML_ATTRIBUTES: Final = _names("""
    display displaystyle scriptlevel mathvariant mathsize stretchy fence form accent accentunder movablelimits largeop
    symmetric separator lspace rspace minsize maxsize linethickness width height depth voffset notation columnalign
    columnspacing columnlines rowalign rowspacing rowlines open close separators
""")
ATTRIBUTES: Final[dict[str, set[str]]] = {
    "a": {"href", "title"},
    "ol": {"start"},
    "div": {"tabindex", "role", "aria-label"},
    "span": {"tabindex", "role", "aria-label"},
    **{tag: set(MATHML_ATTRIBUTES) for tag in MATHML_TAGS},
}
ALIGNMENTS: Final = {"text-align:left": "left", "text-align:center": "center", "text-align:right": "right"}
logging.getLogger("markdown_it").setLevel(logging.WARNING)  # it tells each rule it enters, for each line
_SAFE_LINK = re.compile(r"^(https?://|mailto:)", re.IGNORECASE)
_IDEOGRAPHS = re.compile("[\u3040-\u30ff\u3400-\u9fff]")
_PYGMENTS = HtmlFormatter[str](nowrap=True)


class Renderer(RendererHTML):
    """Markdown tokens to HTML, with the pieces where a page of ours differs from the defaults."""

    def image(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
        description = self.renderInlineAsText(tokens[index].children or [], options, env)
        words = _("[image not loaded: %(description)s]") % {"description": description or _("no description")}
        return f'<span class="unloaded">{escape(words)}</span>'

    def fence(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
        token = tokens[index]
        language = token.info.split(maxsplit=1)[0] if token.info.strip() else ""
        return f"<pre><code>{_coloured(token.content, language)}</code></pre>\n"

    def code_block(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
        return f"<pre><code>{escape(tokens[index].content)}</code></pre>\n"

    def table_open(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
        # Focusable, so that a table wider than its card can be scrolled from the keyboard.
        label = escape(_("Table"))
        return f'<div class="scroll" tabindex="0" role="group" aria-label="{label}"><table>\n'

    def table_close(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
        return "</table></div>\n"

    def math_inline(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
        return to_mathml(tokens[index].content, display=False)

    def math_inline_double(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
        return self._display_formula(tokens[index].content, element="span")

    def math_block(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
        return self._display_formula(tokens[index].content, element="div") + "\n"

    @staticmethod
    def _display_formula(latex: str, *, element: str) -> str:
        # Focusable, as tables are.
        formula = to_mathml(latex, display=True)
        label = escape(_("Formula"))
        return f'<{element} class="math" tabindex="0" role="group" aria-label="{label}">{formula}</{element}>'


def _parser() -> MarkdownIt:
    markdown = MarkdownIt(
        "commonmark", {"html": False, "breaks": True, "maxNesting": MAX_NESTING}, renderer_cls=Renderer
    )
    markdown.enable(["table", "strikethrough"])
    mathematics_plugin(markdown)
    renderer = cast(Renderer, markdown.renderer)
    # The plugin for dollars puts its own rules on top; ours make MathML.
    renderer.rules |= {name: getattr(renderer, name) for name in ("math_inline", "math_inline_double", "math_block")}
    markdown.validateLink = lambda url: bool(_SAFE_LINK.match(url.strip()))  # type: ignore[method-assign]
    return markdown


_MARKDOWN = _parser()
_CLEANER = nh3.Cleaner(
    tags=set(HTML_TAGS | MATHML_TAGS),
    clean_content_tags={"script", "style"},
    attributes=ATTRIBUTES,
    allowed_classes={
        "span": {name for name in STANDARD_TYPES.values() if name} | {"unloaded", "formula", "math"},
        "div": {"scroll", "math"},
        "th": set(ALIGNMENTS.values()),
        "td": set(ALIGNMENTS.values()),
    },
    url_schemes={"http", "https", "mailto"},
    url_relative="deny",
    link_rel="noopener nofollow noreferrer",
    set_tag_attribute_values={"a": {"target": "_blank"}},
)


def render_text(text: str) -> SafeString:
    """The text as safe HTML, made once per content and kept in the cache.

    Longer than 200,000 characters, it is shown as plain text: reading it is the reader's affair, parsing it is ours.
    """
    return render_texts([text])[text]


def render_texts(texts: Iterable[str]) -> dict[str, SafeString]:
    """As render_text, for several texts that are asked of the cache at once: text → HTML."""
    language = get_language()
    keys = {text: cache_key(text, language=language) for text in texts}
    known: dict[str, str] = cache.get_many(keys.values())
    made = {key: render_uncached(text) for text, key in keys.items() if key not in known}
    if made:
        cache.set_many(made, CACHE_SECONDS)
    return {text: mark_safe(known[key] if key in known else made[key]) for text, key in keys.items()}


def render_uncached(text: str) -> str:
    """The text as safe HTML; the same text in the same language always gives the same HTML."""
    if len(text) > MAX_MARKDOWN_CHARACTERS:
        return f"<pre>{escape(text)}</pre>"
    tokens = _MARKDOWN.parse(text)
    if max((token.level for token in tokens), default=0) >= MAX_NESTING - 1:
        return f"<pre>{escape(text)}</pre>"
    _demote_headings(tokens)
    _align_by_class(tokens)
    return _CLEANER.clean(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))


def count_words(text: str) -> int:
    """Words by white space; in text without spaces between words (Chinese, Japanese) every such character counts."""
    ideographs = 0 if text.isascii() else len(_IDEOGRAPHS.findall(text))
    return len(text.split()) if ideographs < len(text) / 4 else ideographs


def _demote_headings(tokens: Sequence[Token]) -> None:
    """The highest heading of the text becomes h3, the next one down h4, and so on: the page's own are h1 and h2."""
    headings = [token for token in tokens if token.type in {"heading_open", "heading_close"}]
    levels = sorted({token.tag for token in headings})
    for token in headings:
        token.tag = f"h{min(FIRST_HEADING_LEVEL + levels.index(token.tag), 6)}"


def _align_by_class(tokens: Sequence[Token]) -> None:
    """Table cells carry their alignment as a class, because inline styles are refused by our pages."""
    for token in tokens:
        style = token.attrs.pop("style", None) if token.type in {"th_open", "td_open"} else None
        if style is not None:
            token.attrs["class"] = ALIGNMENTS.get(str(style), "left")


def _coloured(code: str, language: str) -> str:
    if not language or len(code) > MAX_CODE_CHARACTERS:
        return escape(code)
    try:
        lexer = get_lexer_by_name(language, stripnl=False)
    except ClassNotFound:
        return escape(code)
    return highlight(code, lexer, _PYGMENTS)
