"""The first records of a file, as sentences and short texts."""

from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotate.interchange.records import ImportedRecord
from annotate.services.uploads import Preview

PROMPT_CHARACTERS = 300
RESPONSE_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class ShownRecord:
    """One record: its last message, its responses with the letters that the ranking uses, and what was said."""

    line: int
    what: str
    prompt: str
    before: int
    responses: list[tuple[str, str, str]]
    ranking: str
    by: str


def shown_preview(preview: Preview) -> dict[str, Any]:
    """What the template needs."""
    return {
        "preview": preview,
        "records": [_shown(record) for record in preview.good],
        "bad": preview.bad,
        "bad_count": preview.looked_at - preview.good_count,
    }


def _shown(record: ImportedRecord) -> ShownRecord:
    letters = {response.id: chr(ord("A") + number) for number, response in enumerate(record.responses)}
    responses = [(letters[one.id], _cut(one.text, RESPONSE_CHARACTERS), one.model or "") for one in record.responses]
    return ShownRecord(
        line=record.line,
        what=_what(record),
        prompt=_cut(record.prompt[-1]["content"], PROMPT_CHARACTERS),
        before=len(record.prompt) - 1,
        responses=responses,
        ranking=_ranking(record, letters),
        by=record.annotator or "",
    )


def _what(record: ImportedRecord) -> str:
    if record.type == "demonstration":
        return _("a demonstration")
    if record.type == "prompt":
        return _("a prompt")
    count = len(record.responses)
    if record.ranking is None:
        return ngettext("a task with %(n)d response", "a task with %(n)d responses", count) % {"n": count}
    return ngettext("a ranking of %(n)d response", "a ranking of %(n)d responses", count) % {"n": count}


def _ranking(record: ImportedRecord, letters: dict[str, str]) -> str:
    """`B > A = D`, as on the pages of tasks."""
    tiers = [" = ".join(letters[name] for name in tier) for tier in record.ranking or ()]
    return " > ".join(tiers)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit].rstrip()}…"
