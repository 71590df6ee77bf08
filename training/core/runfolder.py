"""The files of a run's folder that a runner tails: ``run.json``, ``metrics.jsonl`` and what stands in them."""

import json
import math
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

from training.core.files import read_json, sync, write_json
from training.core.process import now

RUN_NAME, METRICS_NAME, REPORT_NAME, SAMPLES_NAME = "run.json", "metrics.jsonl", "report.json", "samples.jsonl"
PACKAGES = ("plackett", "torch", "transformers", "peft", "safetensors", "tokenizers")


def read_run(folder: Path) -> dict[str, Any] | None:
    """What ``run.json`` says, or None where no run has begun."""
    value = read_json(folder / RUN_NAME)
    return value if isinstance(value, dict) else None


def write_run(
    folder: Path,
    *,
    recipe: str,
    config: dict[str, Any],
    data_sha256: str,
    model_fingerprint: str,
    facts: dict[str, Any],
    world_size: int,
    from_step: int,
) -> int:
    """Write ``run.json`` with one more attempt and return that attempt's number, from 1."""
    attempts = list((read_run(folder) or {}).get("attempts", []))
    number = len(attempts) + 1
    attempts.append({"number": number, "from_step": from_step, "world_size": world_size, "started_at": now()})
    value = {
        "recipe": recipe,
        "config": config,
        "data_sha256": data_sha256,
        "model_fingerprint": model_fingerprint,
        "versions": versions(),
        **facts,
        "attempts": attempts,
    }
    write_json(folder / RUN_NAME, value)
    return number


def versions() -> dict[str, str]:
    """Of Python and the packages that results depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class StepFile:
    """A file of JSON lines with a ``step`` each, in order, flushed; several may be of one step."""

    def __init__(self, path: Path, *, from_step: int) -> None:
        """Open the file behind the rows of ``from_step``; what stands after them, or is broken, is cut off."""
        if path.exists():
            os.truncate(path, _bytes_up_to(path, from_step))
        self._file: TextIO = open(path, "a", encoding="utf-8")  # noqa: SIM115 open as long as the run
        sync(path.parent)

    def append(self, step: int, values: Mapping[str, Any]) -> None:
        """Append a row; a value that is no number of JSON becomes null."""
        row = {name: _plain(value) for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **row}, ensure_ascii=False) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Have the rows written to disk; a checkpoint must not be ahead of them."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class MetricsFile(StepFile):
    """``metrics.jsonl``: one line a step, each step exactly once in the end."""

    def __init__(self, folder: Path, *, attempt: int, from_step: int) -> None:
        """Args: ``attempt`` stands in each row."""
        self._attempt = attempt
        super().__init__(folder / METRICS_NAME, from_step=from_step)

    def write(self, step: int, values: dict[str, float | None]) -> None:
        """Append the row of a step."""
        self.append(step, {"attempt": self._attempt, **values})


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _bytes_up_to(path: Path, step: int) -> int:
    """Where the rows of the steps up to ``step`` end."""
    end = 0
    with open(path, "rb") as file:
        for raw in file:
            try:
                row = json.loads(raw)
            except ValueError:
                break
            if not raw.endswith(b"\n") or not isinstance(row, dict) or row.get("step", step + 1) > step:
                break
            end += len(raw)
    return end
