"""What a trainer needs before it can start: its data, its base model, its command line."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from django.core.files.storage import default_storage

from annotate.models import Snapshot
from training import base_models
from training.models import ModelVersion, Run, Try
from training.recipes.configs import RECIPES, ConfigError, build, to_arguments
from training.runner.reaching import CannotStart, Pulse, fetch_model, fetch_snapshot
from training.runner.trainer import Trainer
from training.services.run_settings import OTHER_MODELS, recipe_of, reward_faults, runs_code
from training.store.opening import open_store

CHUNK_BYTES = 1 << 20
POLL_SECONDS = 0.25


def prepare(run: Run, *, data: Path, log: Path, pulse: Pulse, started: Callable[[int | None], None]) -> list[str]:
    """Brings data and base model to this machine and returns the trainer's command line.

    Args:
        data: where the snapshot is copied to.
        started: told the process group of whatever is started meanwhile, and None when that has ended.

    Raises:
        CannotStart: with the reason.
    """
    tried = Try.objects.filter(pk=run.pk).first()
    if run.snapshot is None and tried is None:
        raise CannotStart("The run has no snapshot.")
    data.parent.mkdir(parents=True, exist_ok=True)
    if tried is not None:
        data.write_text(line_of_try(tried), encoding="utf-8")
    elif run.snapshot is not None:
        copy_snapshot(run.snapshot, data, pulse=pulse)
    model = bring_base_model(run, log=log, pulse=pulse, started=started)
    inputs = bring_inputs(run, log=log, pulse=pulse, started=started)
    return command_line(run, model=model, data=data, inputs=inputs, stream=tried is not None)


def remove_left_behind(folder: Path) -> None:
    """Removes the copies of data that lost attempts left in the run's folder."""
    for left_behind in folder.glob("data-*"):  # a part that was fetched of one, too
        left_behind.unlink(missing_ok=True)
    for left_behind in folder.glob("tokens-*"):
        shutil.rmtree(left_behind, ignore_errors=True)


def line_of_try(tried: Try) -> str:
    """The data of a try: one prompt. Which split it is of is the project's business, and of none to its run."""
    return json.dumps({"format": "plackett/1", "type": "prompt", "prompt": tried.messages, "split": "train"}) + "\n"


def copy_snapshot(snapshot: Snapshot, target: Path, *, pulse: Pulse) -> None:
    """Copies the snapshot's file from the artifact store and checks its hash.

    Raises:
        CannotStart: it was withdrawn, cannot be read, or is not what was frozen.
    """
    snapshot.refresh_from_db()
    if snapshot.state != Snapshot.State.FROZEN:
        raise CannotStart(f"The snapshot {snapshot.name} was withdrawn: nothing may be trained from it.")
    if (store := open_store()) is not None:
        fetch_snapshot(store, snapshot, target, pulse=pulse)
        return
    digest = hashlib.sha256()
    draft = target.with_suffix(".part")
    try:
        with default_storage.open(snapshot.file, "rb") as source, draft.open("wb") as copy:
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                copy.write(chunk)
                pulse()
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise CannotStart(f"The file of the snapshot {snapshot.name} cannot be copied: {error}.") from error
    if digest.hexdigest() != snapshot.sha256:
        draft.unlink()
        raise CannotStart(f"The file of the snapshot {snapshot.name} is not the one that was frozen (sha256 differs).")
    os.replace(draft, target)


def bring_base_model(run: Run, *, log: Path, pulse: Pulse, started: Callable[[int | None], None]) -> str:
    """What --model is to be: a folder on this machine, or a hub id that the recipe fetches.

    Raises:
        CannotStart: the model is not here and cannot be made.
    """
    return _bring(run.base_model, run.base_version, log=log, pulse=pulse, started=started)


def bring_inputs(
    run: Run, *, log: Path, pulse: Pulse, started: Callable[[int | None], None]
) -> dict[str, str]:  # fmt: skip
    """The flags for the models that the run reads besides its base, each as ``bring_base_model`` says.

    Raises:
        CannotStart: one is not here and cannot be made.
    """
    return {
        one.role: _bring(one.name, one.version, log=log, pulse=pulse, started=started)
        for one in run.inputs.select_related("version")
    }


def _bring(
    name: str, version: ModelVersion | None, *, log: Path, pulse: Pulse, started: Callable[[int | None], None]
) -> str:
    if version is not None:
        return _folder_of(version, pulse=pulse)
    if (built_in := base_models.BUILT_IN.get(name)) is not None:
        _make_sure_of(built_in, log=log, pulse=pulse, started=started)
        return str(built_in.folder)
    return _place_of(name)


def _folder_of(version: ModelVersion, *, pulse: Pulse) -> str:
    folder: Path | None = version.path
    if version.deleted_at is None and not base_models.is_model_folder(version.path):
        folder = fetch_model(version, pulse=pulse)
    if version.deleted_at is not None or folder is None or not base_models.is_model_folder(folder):
        raise CannotStart(f"The files of the model {version} are gone.")
    return str(folder)


def _place_of(name: str) -> str:
    if fault := base_models.name_fault(name):
        raise CannotStart(fault)
    return name if base_models.HUB_ID.fullmatch(name) else str(base_models.models_root() / name)


def _make_sure_of(
    model: base_models.BuiltIn, *, log: Path, pulse: Pulse, started: Callable[[int | None], None]
) -> None:
    """Runs the module that writes the model's folder, if that is not there; it publishes by rename, so two at once are
    harmless."""
    if base_models.is_model_folder(model.folder):
        return
    maker = Trainer([sys.executable, "-m", model.module, "--output", str(model.folder)], log=log)
    started(maker.process_id)
    try:
        while (status := maker.wait(POLL_SECONDS)) is None:
            pulse()
    finally:
        maker.end()
        started(None)
    if status != 0:
        raise CannotStart(f"The base model {model.name} could not be made (exit {status}); the log says why.")


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where the processes of several machines find one another, and which of the machines this is."""

    address: str
    port: int
    rank: int


def mark_of(run: Run, attempt: int | None = None, rank: int | None = None) -> str:
    """What a run's processes are known by on a machine; those of an attempt, or of a member of it, if it is given."""
    whole = f"{run.folder}#"
    if attempt is None:
        return whole
    return f"{whole}{attempt}." if rank is None else f"{whole}{attempt}.{rank};"


def launched(command: list[str], run: Run, meeting: Meeting | None) -> list[str]:
    """The command, started by torchrun where several processes are to run it.

    Machines meet statically, not by c10d's election: rank 0 is where the run is held and its files are mirrored. An
    attempt begins once; whoever fails ends it for all, and the next attempt goes on from the checkpoint.
    """
    if run.processes * run.nodes == 1:
        return command
    python, *module = command
    several = [python, "-m", "torch.distributed.run", f"--nproc-per-node={run.processes}", "--max-restarts=0"]
    if meeting is None:
        return [*several, "--standalone", *module]
    place = [f"--nnodes={run.nodes}", f"--node-rank={meeting.rank}", f"--master-addr={meeting.address}"]
    return [*several, *place, f"--master-port={meeting.port}", *module]


def command_line(run: Run, *, model: str, data: Path, inputs: Mapping[str, str], stream: bool = False) -> list[str]:
    """The trainer's command: always with --resume once the output folder holds something, and of several machines,
    which must all say the same.

    Args:
        stream: a sampling run is to tell its tokens as they come.

    Raises:
        CannotStart: the stored config is not one that this version's recipe takes.
    """
    output = run.folder / "out"
    resume = run.nodes > 1 or (output.is_dir() and any(output.iterdir()))
    recipe = recipe_of(run.kind, inputs)
    flags = {role: place for role, place in inputs.items() if role not in OTHER_MODELS}
    models = [model, *(inputs[role] for role in OTHER_MODELS if role in inputs)]
    places = {
        "model": models if run.kind == Run.Kind.SAMPLE else model,
        "data": str(data), "output": str(output), "resume": resume, **flags,
    }  # fmt: skip
    if reward_faults(run.config.get("reward")):
        raise CannotStart("This server no longer offers one of the run's rewards; see PLACKETT_REWARD_FUNCTIONS.")
    if stream:
        places["stream"] = True
    if runs_code(run.config):
        places["allow_code_execution"] = True
    try:
        config = build(RECIPES[recipe], {**run.config, **places})
    except (ConfigError, KeyError) as error:
        raise CannotStart(f"This version cannot run the stored settings: {error}.") from error
    return [sys.executable, "-m", f"training.recipes.{recipe}", *to_arguments(config)]
