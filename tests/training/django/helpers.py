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
from training.models import Run, Try
from training.services.claims import Claim, claim_run, mark_running, succeed
from training.services.workers import Identity, Machine, announce_worker

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


ASKED = [{"role": "user", "content": "What is tea?"}]


def queue_try(project: Project, *, messages: list[dict[str, str]] | None = None, **fields: Any) -> Try:
    """A waiting try of two responses, as services.tries.start_try leaves it, without its checks."""
    config = SAMPLED | {"samples_per_prompt": 2, "max_length": 64}
    values: dict[str, Any] = {
        "project": project, "name": "a try", "kind": "sample", "base_model": "tiny", "config": config,
        "queued_at": Now(),
    }  # fmt: skip
    run = Run.objects.create(**(values | fields))
    Try.objects.create(run=run, messages=messages or ASKED)
    return Try.objects.select_related("run__project").get(pk=run.pk)


def finish_try(tried: Try, texts: list[str], *, thinking: str | None = None) -> None:
    """Ends a try with these responses of its one model."""
    responses = [
        {"model_index": 0, "sample": number, "text": text, "thinking": thinking, "ended": True, "tokens": 3,
         "score": 0.5 + number}
        for number, text in enumerate(texts)
    ]  # fmt: skip
    Try.objects.filter(pk=tried.pk).update(result={"responses": responses, "seconds": [1.5]})
    Run.objects.filter(pk=tried.pk).update(state="starting", attempt=1, worker="a", lease_expires_at=Now(),
                                           heartbeat_at=Now(), started_at=Now())  # fmt: skip
    Run.objects.filter(pk=tried.pk).update(state="running")
    Run.objects.filter(pk=tried.pk).update(state="succeeded", lease_expires_at=None, finished_at=Now(), report={})
    tried.refresh_from_db()
    tried.run.refresh_from_db()


def make_worker(*queues: str, name: str = "") -> str:
    """A living worker of these queues; its name."""
    name = name or f"{queues[0]}@a"
    machine = Machine(processors=4, memory_bytes=2**33, memory_used_bytes=2**32)
    announce_worker(Identity(name, "a", 1, queues, ""), machine=machine, up_seconds=9)
    return name
