"""Where a phrase stands in what a project holds in words: an exact substring, found a bounded look at a time."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import F, Func, Q, QuerySet, TextField
from django.db.models.functions import Cast
from django.utils.translation import gettext as _

from annotate.errors import Invalid
from annotate.models import Demonstration, Draft, Project, Prompt, Ranking, Response, Review, Skip, TaskFlag

PAGE = 100
#: Rows of one kind that a page looks through; no index holds the texts.
WINDOW = 10_000
MIN_CHARACTERS, MAX_CHARACTERS = 3, 1_000


@dataclass(frozen=True, slots=True)
class Found:
    """A row that holds the phrase: its kind and id, and where it belongs. Never the text."""

    kind: str
    id: int
    prompt: int | None
    task: int | None
    annotator: str | None

    def as_json(self) -> dict[str, Any]:
        ids = {
            name: None if value is None else str(value) for name, value in (("id", self.id), ("prompt", self.prompt))
        }
        return {"kind": self.kind, **ids, "task": self.task, "annotator": self.annotator}


@dataclass(frozen=True, slots=True)
class Place:
    """How far a search has come: the kind it is at and the last id it looked at."""

    kind: int = 0
    after: int = 0

    def encode(self) -> str:
        return f"{self.kind}:{self.after}"

    @classmethod
    def decode(cls, text: str) -> "Place":
        """Raises Invalid: a place that we did not give."""
        kind, _colon, after = text.partition(":")
        if not (kind.isdecimal() and after.isdecimal() and int(kind) < len(KINDS) and len(after) < 19):
            words = _("This is no place of ours; begin again without one.")
            raise Invalid(words, fields={"cursor": words})
        return cls(int(kind), int(after))


class _Contents(Func):
    """The texts of messages as one JSON text. A phrase cannot reach from one into the next: its quotes are escaped."""

    function = "jsonb_path_query_array"
    template = "%(function)s(%(expressions)s, '$[*].content')::text"
    output_field = TextField()


@dataclass(frozen=True, slots=True)
class _Kind:
    """Rows of one model and where they hold words: columns of text, and of JSON."""

    name: str
    rows: QuerySet[Any]
    project: str
    texts: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()

    def of(self, project: Project) -> QuerySet[Any]:
        rows = self.rows.filter(**{self.project: project})
        return rows.filter(withdrawn_at=None) if hasattr(self.rows.model, "withdrawn_at") else rows

    def holding(self, rows: QuerySet[Any], phrase: str) -> QuerySet[Any]:
        found = Q()
        for name in self.texts:
            found |= Q(**{f"{name}__contains": phrase})
        for name in self.objects:
            said = _Contents(F(name)) if name == "messages" else Cast(name, TextField())
            rows = rows.annotate(**{f"said_{name}": said})
            found |= Q(**{f"said_{name}__contains": _as_json(phrase)})
        return rows.filter(found)

    def texts_of(self, row: Any) -> Iterator[tuple[str, str]]:
        """Every text that a row holds, with the name of its column; of messages their contents, of JSON its strings."""
        for name in self.texts:
            yield name, getattr(row, name) or ""
        for name in self.objects:
            value = getattr(row, name)
            if name == "messages":
                yield from ((name, one["content"]) for one in value)
            else:
                yield from ((name, text) for text in strings_in(value))

    def found(self, row: Any) -> Found:
        task = row.task_id if hasattr(row, "task_id") else row.ranking.task_id if self.name == "review_note" else None
        writer = getattr(row, "annotator", None) or getattr(row, "reviewer", None)
        prompt = row.pk if self.name == "prompt" else getattr(row, "prompt_id", None)
        return Found(self.name, row.pk, prompt, task, writer.username if writer else None)


_OF_TASK = "task__project"
KINDS = (
    _Kind("prompt", Prompt.objects.all(), "project", ("answer",), ("messages", "tests", "tags", "extra")),
    _Kind("response", Response.objects.all(), "prompt__project", ("text", "thinking"), ("extra",)),
    _Kind("demonstration", Demonstration.objects.all(), "project", ("text",)),
    _Kind("ranking", Ranking.objects.select_related("annotator"), "project", ("rationale", "rewrite_text"), ("extra",)),
    _Kind("skip_note", Skip.objects.select_related("annotator"), "project", ("note",)),
    _Kind("flag_note", TaskFlag.objects.select_related("annotator"), _OF_TASK, ("note",)),
    _Kind("review_note", Review.objects.select_related("reviewer", "ranking"), "ranking__project", ("note",)),
    _Kind("draft", Draft.objects.select_related("annotator"), _OF_TASK, (), ("body",)),
)


def find_phrase(
    project: Project, phrase: str, *, at: Place | None = None, limit: int | None = None
) -> tuple[list[Found], Place | None]:
    """The next rows that hold the phrase, and where to go on; None when everything was looked at.

    At most `limit` of them, PAGE unless told. Looks through prompts, responses, demonstrations, rankings (rationale,
    edited version, unknown keys), notes of skips, flags and reviews, and drafts: one kind at a time, at most WINDOW
    rows, so an empty page may lead to another.

    Raises:
        Invalid: the phrase is shorter than 3 or longer than 1,000 characters.
    """
    if not MIN_CHARACTERS <= len(phrase) <= MAX_CHARACTERS or "\0" in phrase:
        words = _("From %(low)d to %(high)d characters.") % {"low": MIN_CHARACTERS, "high": MAX_CHARACTERS}
        raise Invalid(words, fields={"text": words})
    at, limit = at or Place(), limit or PAGE
    kind = KINDS[at.kind]
    beyond = kind.of(project).filter(pk__gt=at.after).order_by("pk")
    ends = list(beyond.values_list("pk", flat=True)[WINDOW - 1 : WINDOW])
    looked_at = beyond.filter(pk__lte=ends[0]) if ends else beyond
    found = [kind.found(row) for row in kind.holding(looked_at, phrase)[: limit + 1]]
    if len(found) > limit:
        return found[:limit], Place(at.kind, found[limit - 1].id)
    if ends:
        return found, Place(at.kind, ends[0])
    return found, Place(at.kind + 1) if at.kind + 1 < len(KINDS) else None


def found_again(project: Project, phrase: str, chosen: Iterable[tuple[str, int]]) -> list[Found]:
    """Those of the chosen rows (kind and id) that are this project's and still hold the phrase, in the usual order."""
    asked = set(chosen)
    found: list[Found] = []
    for kind in KINDS:
        rows = kind.of(project).filter(pk__in=[pk for name, pk in asked if name == kind.name]).order_by("pk")
        found += [kind.found(row) for row in kind.holding(rows, phrase)]
    return found


def strings_in(value: object) -> Iterator[str]:
    """Every string in a JSON value, names of objects too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, one in value.items():
            yield name
            yield from strings_in(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings_in(one)


def _as_json(phrase: str) -> str:
    """As a JSON text of the database holds it: jsonb escapes as json does, and nothing beyond ASCII."""
    return json.dumps(phrase, ensure_ascii=False)[1:-1]
