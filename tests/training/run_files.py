"""What a recipe wrote into its folder."""

import json
from pathlib import Path
from typing import Any


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl``."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def report_of(folder: Path) -> dict[str, Any]:
    """``report.json``."""
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report
