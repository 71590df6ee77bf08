"""Brings the message catalogues up to date with the texts in the source: `make messages`.

Extracted by Babel from Python as it is and from templates as Django itself prepares them for gettext, so a msgid here
is the msgid that Django looks up. No gettext needs to be installed.
"""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import DEFAULT_KEYWORDS, extract
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

from webapp.catalogues import LOCALES, compile_catalogues

REPOSITORY = Path(__file__).resolve().parent.parent
APPS = ("annotate", "training", "webapp")
#: Header lines that change with every run, or say what the repository knows better.
NOBODY_READS = tuple(
    f'"{name}:'
    for name in (
        "Report-Msgid-Bugs-To",
        "POT-Creation-Date",
        "PO-Revision-Date",
        "Last-Translator",
        "Language-Team",
        "Generated-By",
    )
)
KEYWORDS = {
    **DEFAULT_KEYWORDS,
    "gettext_lazy": None,
    "gettext_noop": None,
    "ngettext_lazy": (1, 2),
    "pgettext_lazy": ((1, "c"), 2),
    "npgettext_lazy": ((1, "c"), 2, 3),
}


def sources() -> Iterator[Path]:
    """Python files and templates of the apps, in a stable order."""
    for app in APPS:
        for path in sorted((REPOSITORY / app).rglob("*")):
            if path.suffix == ".py" or (path.suffix == ".html" and "templates" in path.parts):
                yield path


def as_python(path: Path) -> bytes:
    """The file as Python that names its messages; a template's other content is blanked out, its lines kept."""
    text = path.read_text()
    if path.suffix == ".html":
        text = "\n".join(line.lstrip() for line in templatize(text, origin=str(path)).split("\n"))
    return text.encode()


def extract_messages() -> Catalog:
    """A catalogue without translations of every message in the source, each with the files it stands in."""
    found = Catalog(project="Plackett", domain="django", charset="utf-8", fuzzy=False)
    for path in sources():
        name = path.relative_to(REPOSITORY).as_posix()
        calls = extract("python", io.BytesIO(as_python(path)), KEYWORDS, ("Translators:",), {"encoding": "utf-8"})
        for _, message, comments, context in calls:
            found.add(message, None, [(name, None)], auto_comments=comments, context=context)
    return found


def update(source: Path) -> Catalog:
    """Writes the catalogue anew: what is new stands there untranslated, what is gone is gone, the rest is kept."""
    with source.open("rb") as lines:
        catalogue = read_po(lines, locale=source.parent.parent.name, domain=source.stem)
    catalogue.update(extract_messages(), no_fuzzy_matching=True)
    catalogue.obsolete.clear()
    out = io.BytesIO()
    write_po(out, catalogue, width=110, include_lineno=False, sort_by_file=True, ignore_obsolete=True)
    lines = out.getvalue().decode().splitlines(keepends=True)
    source.write_text("".join(line for line in lines if not line.startswith(NOBODY_READS)))
    return catalogue


def untranslated(catalogue: Catalog) -> list[str]:
    """The first forms of what has no translation yet, or a doubtful one."""
    return [str(_forms(one.id)[0]) for one in catalogue if one.id and (one.fuzzy or not all(_forms(one.string)))]


def _forms(text: str | tuple[str, ...] | list[str] | None) -> tuple[str, ...]:
    return tuple(text) if isinstance(text, tuple | list) else (text or "",)


def main() -> int:
    """Updates and compiles all catalogues; says for each what is still to be translated."""
    for source in sorted(LOCALES.glob("*/LC_MESSAGES/django.po")):
        catalogue = update(source)
        print(f"{catalogue.locale_identifier}: {len(catalogue)} messages, {len(untranslated(catalogue))} to translate.")
    compile_catalogues()
    return 0


if __name__ == "__main__":
    sys.exit(main())
