"""Small steps that the tests of runs share."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db.models.functions import Now

from annotate.models import Project, Snapshot, User
from tests.training.snapshots import records
from training.models import Run
from training.services.claims import Claim, claim_run, mark_running, succeed

CONFIG = {"seed": 0, "epochs": 1}


@dataclass(frozen=True)
class RunCast:
    """Alice is an engineer of the project, Bob manages it without being one, Charlie is an engineer elsewhere, Sue is a
    superuser."""

    alice: User
    bob: User
    charlie: User
    sue: User


def make_snapshot(
    project: Project,
    lines: Iterable[dict[str, Any]] | None = None,
    *,
    name: str = "first",
    counts: dict[str, Any] | None = None,
) -> Snapshot:
    """A frozen snapshot whose file holds these records; all of them rankings, unless ``counts`` says what they are."""
    found = list(records(train=16, validation=4) if lines is None else lines)
    content = "".join(json.dumps(line) + "\n" for line in found).encode()
    splits = [line["split"] for line in found]
    return Snapshot.objects.create(
        project=project,
        name=name,
        counts=counts
        or {
            "rankings": len(found),
            "pairs_by_split": {split: 3 * splits.count(split) for split in ("train", "validation", "test")},
        },
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        change=0,
        file=default_storage.save("snapshots/test.jsonl", ContentFile(content)),
    )


def queue_run(snapshot: Snapshot, **fields: Any) -> Run:
    """A queued run, as services.runs.start_run leaves it, without its checks."""
    values: dict[str, Any] = {
        "project": snapshot.project,
        "name": "a run",
        "kind": Run.Kind.REWARD,
        "snapshot": snapshot,
        "base_model": "tiny",
        "config": CONFIG,
        "queued_at": Now(),
    }
    run = Run.objects.create(**(values | fields))
    run.refresh_from_db()
    return run


def claim(*, queues: tuple[str, ...] = ("gpu",), worker: str = "gpu@a") -> Claim:
    """Claims the next run, which must be there."""
    found = claim_run(queues=list(queues), worker=worker, host="a")
    assert found is not None
    return found


def expire(run: Run) -> None:
    """Lets the time of the run's lease pass."""
    Run.objects.filter(pk=run.pk).update(lease_expires_at="2001-01-01T00:00:00Z")


SAMPLED = {"temperature": 1.0, "max_response_length": 8, "seed": 0}


def write_responses(run: Run, texts: list[list[str]], *, models: int = 1) -> None:
    """What a sampling run leaves: `texts` of each prompt, dealt out to the models in turn."""
    folder = run.folder / "out"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "step": 1, "model_index": place % models, "prompt_index": number, "sample": place // models, "id": None,
            "split": "train", "split_group": f"group {number}",
            "prompt": [{"role": "user", "content": f"Question {number}?"}], "model": "m", "text": text,
            "thinking": None, "tokens": len(text), "token_ids": [], "ended": place != 1, "score": 0.5 + place,
            "temperature": 1.0, "seed": 0,
        }
        for number, said in enumerate(texts)
        for place, text in enumerate(said)
    ]  # fmt: skip
    rows.sort(key=lambda row: row["model_index"])
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "responses.jsonl").write_text(lines)


def make_sampled(snapshot: Snapshot, texts: list[list[str]], *, models: int = 1) -> Run:
    """A sampling run that has succeeded; see ``write_responses``."""
    run = queue_run(snapshot, kind="sample", config=SAMPLED, queue="sampled")
    if models > 1:
        run.inputs.create(role="model_2", name="owner/model")
    held = claim(queues=("sampled",))
    mark_running(held, process_id=1, process_started_at=1.0)
    write_responses(run, texts, models=models)
    succeed(held, model=None, step=1, report={"counts": {}})
    run.refresh_from_db()
    return run
