"""Native lines for tests of the import, and the import of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from annotate.interchange.native import record_from_object
from annotate.interchange.records import ImportedRecord
from annotate.models import Project
from annotate.services.imports import ImportReport, import_records


def line(question: str = "What is tea?", **fields: Any) -> dict[str, Any]:
    """A native line with three responses."""
    responses = [{"id": f"r{number}", "text": f"{question} Answer {number}."} for number in (1, 2, 3)]
    return {"prompt": [{"role": "user", "content": question}], "responses": responses} | fields


def ranked(question: str = "What is tea?", *tiers: Sequence[str], **fields: Any) -> dict[str, Any]:
    return line(question, ranking=[list(tier) for tier in tiers] or [["r2"], ["r1", "r3"]], **fields)


def records(*lines: dict[str, Any]) -> list[ImportedRecord]:
    return [record_from_object(value, line=number) for number, value in enumerate(lines, 1)]


def put(project: Project, *lines: dict[str, Any], **options: Any) -> ImportReport:
    return import_records(project=project, records=records(*lines), **options)


def written(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in lines))
    return path
