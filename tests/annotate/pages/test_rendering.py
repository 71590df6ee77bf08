"""Response texts as HTML: what markdown and formulas become, and that nothing in a text can act."""

from html.parser import HTMLParser

import pytest
from django.core.cache import cache
from django.utils import translation

from annotate.pages import rendering
from annotate.pages.rendering import MATHML_TAGS, count_words, render_text, render_uncached
from annotate.rendered import cache_key


class Elements(HTMLParser):
    """Every element with its attributes, as a browser's tokenizer sees them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def elements(text: str) -> list[tuple[str, dict[str, str | None]]]:
    return Elements(render_uncached(text)).found


def tags(text: str) -> list[str]:
    return [tag for tag, _ in elements(text)]


# The first ones follow CVE-2024-26152 and CVE-2025-25296 (markup in the texts of a ranking), the rest the usual tricks:
# markdown links, attributes, MathML and SVG as ways back into HTML, entities, nesting, half-open tags.
PAYLOADS = [
    "<img src=x onerror=alert(document.domain)>",
    '<script>fetch("/api/v1/me/")</script>',
    '{"html": "<svg onload=alert(1)>"}',
    "<svg><script>alert(1)</script></svg>",
    "<svg/onload=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<details open ontoggle=alert(1)>",
    "<style>@import url(http://e)</style>",
    "<form action=http://e><button formaction=javascript:alert(1)>x",
    "<input autofocus onfocus=alert(1)>",
    "<base href=http://e/>",
    "<meta http-equiv=refresh content='0;url=http://e'>",
    "<a href='javascript:alert(1)'>x</a>",
    "[x](javascript:alert(1))",
    "[x](  JaVaScRiPt:alert(1))",
    "[x](java&#115;cript:alert(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](vbscript:msgbox(1))",
    "[x](//evil.example/path)",
    "[x](/accounts/logout/)",
    "[x]: javascript:alert(1)\n\n[x]",
    "<javascript:alert(1)>",
    '[x](http://e "onmouseover=alert(1)")',
    '[x](http://e/"onmouseover="alert(1))',
    "![x](http://evil.example/pixel.png)",
    '![x](x"onerror="alert(1))',
    "[![x](http://evil.example/p.png)](javascript:alert(1))",
    '```"><script>alert(1)</script>\nx\n```',
    "```html\n<img src=x onerror=alert(1)>\n```",
    "`<script>alert(1)</script>`",
    r"$\text{<script>alert(1)</script>}$",
    r"$\text{<img src=x onerror=alert(1)>}$",
    r"$\href{javascript:alert(1)}{x}$",
    r"$\style{background:url(http://e)}{x}$",
    r"$\class{skip-link}{x}$",
    r"$$\unicode{<svg onload=alert(1)>}$$",
    r"\(<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>\)",
    "<math><annotation-xml encoding='text/html'><script>alert(1)</script></annotation-xml></math>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<math href='javascript:alert(1)'><mi>x</mi></math>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<!--<img src='--><img src=x onerror=alert(1)//'>",
    "<<script>alert(1)//<</script>",
    "</div></article></main><script>alert(1)</script>",
    "| a |\n|---|\n| <img src=x onerror=alert(1)> |",
    "# <img src=x onerror=alert(1)>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "\u202e<script>alert(1)</script>",
]
INERT = rendering.HTML_TAGS | MATHML_TAGS
HARMLESS = {"href", "title", "start", "class", "tabindex", "role", "aria-label", "target", "rel"}


@pytest.mark.parametrize("text", PAYLOADS)
def test_nothing_in_a_text_can_act_or_fetch(text: str) -> None:
    for tag, attributes in elements(text):
        assert tag in INERT
        assert set(attributes) <= HARMLESS | rendering.MATHML_ATTRIBUTES
        assert tag == "a" or "href" not in attributes
        assert (attributes.get("href") or "https://").startswith(("http://", "https://", "mailto:"))
        assert not set((attributes.get("class") or "").split()) & {"skip-link", "card", "visually-hidden", "brand"}


@pytest.mark.parametrize("text", PAYLOADS)
def test_rendering_is_stable_when_parsed_and_cleaned_again(text: str) -> None:
    html = render_uncached(text)
    assert rendering._CLEANER.clean(html) == html


def test_links_open_elsewhere_and_carry_no_weight() -> None:
    ((_, attributes),) = [one for one in elements("[x](https://example.com/a?b=1)") if one[0] == "a"]
    assert attributes["href"] == "https://example.com/a?b=1" and attributes["target"] == "_blank"
    assert set(str(attributes["rel"]).split()) >= {"noopener", "nofollow"}


def test_markup_in_a_text_is_shown_as_text() -> None:
    assert render_uncached("a <b>bold</b> move") == "<p>a &lt;b&gt;bold&lt;/b&gt; move</p>\n"


def test_images_are_named_and_not_loaded() -> None:
    html = render_uncached("![a *red* cat](http://example.com/cat.png) ![](http://example.com/)")
    assert "[image not loaded: a red cat]" in html and "[image not loaded: no description]" in html
    assert "example.com" not in html


def test_markdown_tables_code_and_line_breaks() -> None:
    assert tags("**a**\nb") == ["p", "strong", "br"]
    assert ("td", {"class": "right"}) in elements("|a|\n|-:|\n|1|")
    html = render_uncached("```python\nfor x in y: pass\n```")
    assert '<span class="k">for</span>' in html
    assert render_uncached("```nosuchlanguage\na < b\n```") == "<pre><code>a &lt; b\n</code></pre>\n"


def test_headings_start_below_those_of_the_page() -> None:
    assert tags("# a\n\n### b\n\n###### c") == ["h3", "h4", "h5"]
    assert tags("## only") == ["h3"]


@pytest.mark.parametrize(
    "text",
    [
        "$x^2$",
        r"\(x^2\)",
        "$$x^2$$",
        "$$\nx^2\n$$",
        r"\[x^2\]",
        "\\[\nx^2\n- y\n\\]",
        "\\begin{equation}\nx^2\n\\end{equation}",
    ],
)
def test_every_notation_of_a_formula_becomes_mathml(text: str) -> None:
    assert {"math", "msup"} <= set(tags(text)) and "ul" not in tags(text)
    assert "$" not in render_uncached(text) and "\\" not in render_uncached(text)


def test_money_is_no_formula() -> None:
    for text in ("It costs $5, not $10.", "Between $1,000 and $2,000 a year", "US$30 or 20 $", "$HOME and $PATH"):
        assert render_uncached(text) == f"<p>{text}</p>\n"


def test_a_formula_that_cannot_be_read_is_shown_as_written() -> None:
    assert r"\frac{</span>" in render_uncached(r"\(\frac{\)")
    assert r"\[ open" not in render_uncached(r"\[ open") and "[ open" in render_uncached(r"\[ open")


def test_text_nested_too_deeply_is_shown_plain_and_whole() -> None:
    deep = ">" * 40 + " the end\n" + "\n".join("  " * n + "- item" for n in range(40)) + "\nlast line"
    html = render_uncached(deep)
    assert tags(deep) == ["pre"] and "last line" in html and "the end" in html


def test_a_huge_text_is_shown_plain_and_whole() -> None:
    text = "word & " * 40_000
    assert tags(text) == ["pre"] and render_uncached(text).count("&amp;") == 40_000


@pytest.mark.parametrize("piece", ["[", "*a **b ", "`a", "$ ", "\\(", "\\[", "<a ", "![[]()", "$$a ", "> - "])
def test_a_hundred_kilobytes_of_beginnings_come_out_whole(piece: str) -> None:
    # No time is asserted; before the searches were bounded, one of these took 43 seconds.
    text = piece * (100_000 // len(piece))
    assert len(render_uncached(text)) > 10_000


def test_the_same_text_is_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "cached *text*"
    cache.delete(cache_key(text, language="en"))
    first = render_text(text)
    monkeypatch.setattr(rendering, "render_uncached", lambda _: "changed")
    assert render_text(text) == first == "<p>cached <em>text</em></p>\n"
    assert render_text("another text") == "changed"
    cache.delete(cache_key("another text", language="en"))


def test_words_are_counted_also_without_spaces() -> None:
    assert count_words("one two\nthree") == 3
    assert count_words("这是一个回答。") == 6
    assert count_words("") == 0


def test_words_of_ours_in_a_text_follow_the_reader() -> None:
    text = "![](http://example.com/) \n\n| a |\n|---|\n| b |\n"
    english = render_text(text)
    with translation.override("de"):
        german = render_text(text)
    assert "[image not loaded: no description]" in english and 'aria-label="Table"' in english
    assert "[Bild nicht geladen: keine Beschreibung]" in german and 'aria-label="Tabelle"' in german
    assert render_text(text) == english
