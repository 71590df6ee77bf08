"""The places where a phrase stands in what was found, with a few words around each: for whoever decides what goes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

from django.db.models import Min

from annotate.models import Project, RankingTask
from annotate.selectors.phrases import KINDS, Found

#: Of one row.
PLACES = 3
#: Before the phrase, and after it.
CHARACTERS = 70


@dataclass(frozen=True, slots=True)
class Excerpt:
    """One place: the name of the column, and the text cut around the phrase."""

    column: str
    before: str
    held: str
    after: str


def excerpts_of(project: Project, phrase: str, found: Sequence[Found]) -> dict[tuple[str, int], list[Excerpt]]:
    """(kind, id) → at most PLACES places in the row. What went meanwhile has none.

    Found in the JSON of a column, but in none of its strings (a number, a piece that reaches from one into the next), a
    phrase has no place to show either.
    """
    kinds = {kind.name: kind for kind in KINDS}
    shown: dict[tuple[str, int], list[Excerpt]] = {}
    for name, ones in groupby(sorted(found, key=lambda one: one.kind), key=lambda one: one.kind):
        for row in kinds[name].of(project).filter(pk__in=[one.id for one in ones]):
            shown[name, row.pk] = list(islice(_places(kinds[name].texts_of(row), phrase), PLACES))
    return shown


def tasks_of(found: Sequence[Found]) -> dict[int, int]:
    """prompt → the first of its tasks, on whose page it can be read; a bare prompt has none."""
    prompts = {one.prompt for one in found if one.prompt is not None}
    tasks = RankingTask.objects.filter(prompt__in=prompts).order_by().values_list("prompt")
    return dict(tasks.annotate(Min("pk")))


def _places(texts: Iterator[tuple[str, str]], phrase: str) -> Iterator[Excerpt]:
    for column, text in texts:
        start = text.find(phrase)
        while start >= 0:
            end = start + len(phrase)
            yield Excerpt(column, _end_of(text, start), phrase, _beginning_of(text, end))
            start = text.find(phrase, end)


def _end_of(text: str, end: int) -> str:
    cut = max(0, end - CHARACTERS)
    return ("…" if cut else "") + text[cut:end]


def _beginning_of(text: str, start: int) -> str:
    cut = start + CHARACTERS
    return text[start:cut] + ("…" if cut < len(text) else "")
