"""The message catalogues: complete, true to the source, and made where they are needed."""

import ast
import os
import re
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.pofile import read_po
from django.conf import settings
from django.template import Context, Template
from django.template.base import Lexer, TokenType
from django.utils import translation
from django.utils.formats import date_format

from annotate.services.answer_faults import MESSAGES, in_words
from tools.messages import REPOSITORY, as_python, extract_messages, sources, untranslated
from webapp.catalogues import LOCALES, compile_catalogues

LANGUAGES = [code for code, _ in settings.LANGUAGES if code != "en"]
GETTEXT = "django.utils.translation"
TRANSLATE = {"_", "gettext", "ngettext", "pgettext", "npgettext"}
PLACEHOLDER = re.compile(r"%\((\w+)\)([sd])|\{(\w+)\}|%%|(</?[a-z]\w*)")


def catalogue(language: str) -> Catalog:
    with (LOCALES / language / "LC_MESSAGES" / "django.po").open("rb") as lines:
        return read_po(lines, locale=language)


def messages(language: str) -> list[Message]:
    return [one for one in catalogue(language) if one.id]


def named(message: Message) -> tuple[str | None, str | tuple[str, ...]]:
    return message.context, tuple(message.id) if isinstance(message.id, list | tuple) else message.id


def placeholders(text: str) -> Counter[str]:
    """What is filled in, and the tags; each as often as it stands there."""
    return Counter(found.group() for found in PLACEHOLDER.finditer(text))


def disagreements(message: Message) -> list[str]:
    """Forms of a translation that fill in something else than the source does."""
    if isinstance(message.id, str):
        return [] if placeholders(str(message.string)) == placeholders(message.id) else [str(message.string)]
    # The singular may leave the number out (“one person”), so it is held against both forms of the source.
    wanted = [set(placeholders(form)) for form in message.id]
    return [form for form in message.string if set(placeholders(form)) not in wanted]


def test_english_needs_no_catalogue_and_every_other_language_has_one() -> None:
    assert settings.LANGUAGE_CODE == "en"
    assert sorted(path.name for path in LOCALES.iterdir() if path.is_dir()) == sorted(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_catalogue_holds_exactly_the_texts_of_the_source(language: str) -> None:
    source = {named(one) for one in extract_messages() if one.id}
    assert len(source) > 500
    kept = {named(one) for one in messages(language)}
    assert sorted(map(str, source - kept)) == [], "run `make messages`, then translate"
    assert sorted(map(str, kept - source)) == [], "run `make messages`"
    assert not catalogue(language).obsolete


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_translated_and_fills_in_the_same(language: str) -> None:
    assert untranslated(catalogue(language)) == []
    forms = {len(one.string) for one in messages(language) if not isinstance(one.id, str)}
    assert forms == {catalogue(language).num_plurals}
    assert {str(one.id): wrong for one in messages(language) if (wrong := disagreements(one))} == {}


@pytest.mark.parametrize("language", LANGUAGES)
def test_translations_end_as_their_source_does(language: str) -> None:
    """A sentence stays a sentence, a label a label; and nothing stands twice in a row."""

    def last(text: str) -> str:
        return text[-1:] if text[-1:] in set(".:?!…") else ""

    pairs = [(one.id, str(one.string)) for one in messages(language) if isinstance(one.id, str)]
    assert [(source, said) for source, said in pairs if last(source) != last(said)] == []
    assert [
        said for _, said in pairs if re.search(r"\b(\w{3,}) \1\b", said) or "  " in said or said != said.strip()
    ] == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("%(n)d of %(m)d", "%(n)d von %(n)d"),
        ("{letter} is gone", "{Buchstabe} ist weg"),
        ("<b>%(n)s</b>", "%(n)s"),
        ("95 %% of it", "95 % davon"),
    ],
)
def test_a_wrong_placeholder_is_found(source: str, said: str) -> None:
    assert disagreements(Message(source, said)) == [said]


# --- the extraction --------------------------------------------------------------------------------------------------

TEMPLATE = """{% load i18n %}
  {% if count %}
{% translate "Plain" %} {% translate "Set" context "of data" %} {{ nothing|default:_("Nothing") }}
    {% endif %}
{% blocktranslate trimmed count n=count with name=user %}
    {{ name }} has 5 % of {{ n }}
{% plural %}
    {{ name }} has 5 % of all {{ n }}
{% endblocktranslate %}{# {% translate "Commented" %} #}{% comment %}{% translate "Left out" %}{% endcomment %}
"""


def test_templates_are_read_as_django_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "x.html"
    path.write_text(TEMPLATE)
    python = as_python(path).decode()
    for call in ("gettext(u'Plain')", "pgettext(u'of data', u'Set')", '_("Nothing")'):
        assert call in python
    assert "'%(name)s has 5 %% of %(n)s', u'%(name)s has 5 %% of all %(n)s'" in python
    assert "Commented" not in python and "Left out" not in python


def test_a_percent_sign_survives_the_way_to_the_page() -> None:
    words = "{% load i18n %}{% blocktranslate trimmed %}95 % interval {{ low }} to {{ high }}{% endblocktranslate %}"
    with translation.override("de"):
        assert Template(words).render(Context({"low": "1", "high": "2"})) == "95-%-Intervall 1 bis 2"


def test_dates_and_numbers_follow_the_language() -> None:
    words = "{% load humanize %}{{ count|intcomma }} {{ share|floatformat:1 }}"
    values = Context({"count": 12345, "share": 0.5})
    with translation.override("de"):
        assert Template(words).render(values) == "12.345 0,5"
    with translation.override("en"):
        assert Template(words).render(values) == "12,345 0.5"
        assert date_format(date(2026, 11, 2)) == "2 November 2026"


def calls_of_gettext(path: Path) -> Iterator[tuple[ast.Call, list[ast.AST]]]:
    """Calls that translate at once, each with what it stands in."""
    tree = ast.parse(path.read_text())
    imports = [one for one in ast.walk(tree) if isinstance(one, ast.ImportFrom) and one.module == GETTEXT]
    names = {one.asname or one.name for line in imports for one in line.names if not one.name.endswith("_lazy")}

    def walk(node: ast.AST, around: list[ast.AST]) -> Iterator[tuple[ast.Call, list[ast.AST]]]:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names & TRANSLATE:
            yield node, around
        for child in ast.iter_child_nodes(node):
            yield from walk(child, [*around, node])

    yield from walk(tree, [])


def test_nothing_is_translated_where_the_visitor_is_not_known_or_babel_does_not_look() -> None:
    """Neither at import (that is what gettext_lazy is for) nor inside an f-string."""
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{call.lineno}"
        for path in sources()
        if path.suffix == ".py"
        for call, around in calls_of_gettext(path)
        if not any(isinstance(one, ast.FunctionDef | ast.Lambda) for one in around)
        or any(isinstance(one, ast.JoinedStr) for one in around)
    ]
    assert wrong == []


NOT_WORDS = re.compile(r"<(code|pre|kbd|script|style)\b.*?</\1>", re.DOTALL)
SPOKEN = re.compile(r'(?:aria-label|title|placeholder|alt|data-name)="([^"]*)"')
#: Names, and blocks that hold classes.
NO_TEXT = re.compile(r"\b(Plackett|API|SHA-256)\b|\{% block (main_class|body_class) %\}.*?\{% endblock %\}")


def unmarked(template: str) -> list[str]:
    """What a template says outside of the translation tags."""
    kept, inside = [], False
    for token in Lexer(NO_TEXT.sub("", template)).tokenize():
        word = token.contents.split()[0] if token.token_type == TokenType.BLOCK else ""
        inside = (inside or word == "blocktranslate") and word != "endblocktranslate"
        if token.token_type == TokenType.TEXT and not inside:
            kept.append(token.contents)
    text = NOT_WORDS.sub("", "".join(kept))
    said = SPOKEN.findall(text) + re.sub(r"<[^>]*>", "\n", text).split("\n")
    return [one.strip() for one in said if re.search(r"[A-Za-z]{2}", one)]


def test_every_template_leaves_its_texts_to_the_translation() -> None:
    assert unmarked('<p title="Look">{% translate "a" %} here <b>{{ x }}</b></p>') == ["Look", "here"]
    templates = [path for path in sources() if path.suffix == ".html"]
    found = {str(path.relative_to(REPOSITORY)): unmarked(path.read_text()) for path in templates}
    assert {name: texts for name, texts in found.items() if texts} == {}


def test_no_template_spells_a_date_out() -> None:
    """Day, month and year stand in another order elsewhere; the named formats know it."""
    letters = re.compile(r"""date:(["'])(?![A-Z_]*_FORMAT\1)[^"']*[a-zA-Z]""")
    assert letters.search("x|date:'j F'") and not letters.search('x|date:"SHORT_DATE_FORMAT"')
    templates = [path for path in sources() if path.suffix == ".html"]
    assert [path.name for path in templates if letters.search(path.read_text())] == []


def test_messages_of_the_pure_rules_are_those_that_are_translated() -> None:
    source = (REPOSITORY / "annotate" / "preferences.py").read_text()
    assert [message for message in MESSAGES if f'"{message}"' not in source] == []
    with translation.override("de"):
        assert in_words({"rationale": "Say why.", "x": "x"}) == {"rationale": "Sagen Sie, warum.", "x": "x"}


# --- the compiled files ----------------------------------------------------------------------------------------------

PO = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=utf-8\\n"\n\nmsgid "Log in"\nmsgstr "{}"\n'


def test_a_catalogue_is_compiled_when_it_changed_and_only_then(tmp_path: Path) -> None:
    source = tmp_path / "de" / "LC_MESSAGES" / "django.po"
    source.parent.mkdir(parents=True)
    source.write_text(PO.format("Anmelden"))
    target = source.with_suffix(".mo")
    assert compile_catalogues(tmp_path) == [target]
    assert b"Anmelden" in target.read_bytes()
    assert compile_catalogues(tmp_path) == []
    source.write_text(PO.format("Einloggen"))
    os.utime(source, (1, 1))  # restored from a backup: older than what was compiled
    assert compile_catalogues(tmp_path) == [target]
    assert b"Einloggen" in target.read_bytes()
    assert [path.name for path in sorted(source.parent.iterdir())] == ["django.mo", "django.po"]


def test_where_nothing_may_be_written_what_is_there_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "de" / "LC_MESSAGES" / "django.po"
    source.parent.mkdir(parents=True)
    source.write_text(PO.format("Anmelden"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    assert compile_catalogues(tmp_path) == [source.with_suffix(".mo")]
    os.utime(source, (1, 1))
    assert compile_catalogues(tmp_path) == []


def test_the_compiled_catalogues_are_up_to_date_here() -> None:
    assert compile_catalogues() == []
