"""From the command line to a recipe and back to an exit code: what all recipes share around their loop."""

import gc
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

import torch
import transformers

from training.core.distributed import World, join_world
from training.core.errors import StopRequested, TrainingError, UsageError
from training.core.files import is_no_room
from training.core.halving import is_left_alone
from training.core.modeling import choose_device
from training.core.process import (
    DONE,
    EXIT_NAME,
    FAILED,
    NO_ROOM,
    REFUSED,
    STOPPED,
    FolderLock,
    StopWatch,
    is_unused,
    log,
    one_line,
    write_exit,
)
from training.core.runfolder import REPORT_NAME, read_run
from training.recipes.configs import Config, ConfigError, differences, to_values
from training.recipes.flags import parse_flags

# What a run may leave that was ended before it wrote run.json.
BEFORE_A_RUN = {".lock", "exit.json", "run.json.tmp", "exit.json.tmp", "cache", "data.jsonl"}
# What is in the folder of a run that came to its end; the model is written last.
RESULTS = ("model", REPORT_NAME)


@dataclass
class Session(Generic[Config]):
    """What a recipe is given: its config, its folder (locked), where it runs, and the word to stop.

    ``step`` is the last finished step; ``owns`` says whether this process may write the folder's ``exit.json``;
    ``results`` are the files and folders of a run that came to its end. ``peer_lost`` says that it failed because
    another process went away without a word. ``prefix`` stands before what it says.
    """

    recipe: str
    config: Config
    folder: Path
    stop: StopWatch = field(init=False)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    world: World = field(default_factory=World)
    step: int | None = None
    owns: bool = False
    results: tuple[str, ...] = RESULTS
    lock: FolderLock | None = None
    peer_lost: bool = False
    prefix: str = ""

    def __post_init__(self) -> None:
        self.stop = StopWatch(on_deadline=self._give_up)

    def begin_finish(self, step: int) -> None:
        """All steps are in a checkpoint: a request to stop may end the process at once from here on.

        Raises:
            StopRequested: there was one already.
        """
        self.stop.grace_seconds = 0.0
        if self.stop.requested:
            raise StopRequested(f"{self.stop.reason} after step {step}, before the report")

    def record(self, code: int, reason: str) -> None:
        """Write ``exit.json`` if it is ours to write."""
        if self.owns and self.world.is_main:
            write_exit(self.folder, code, reason, step=self.step, peer_lost=self.peer_lost)

    def _give_up(self, reason: str) -> None:
        """The step under way could not be finished in time."""
        if failed := self.world.announced_failure():
            # The step was not finished because another process cannot take its part of it; torchrun then ends us.
            self.record(FAILED, failed)
        else:
            self.record(STOPPED, f"{reason}, the step under way dropped" if self.stop.grace_seconds else reason)
        self.say(reason)

    def say(self, message: str) -> None:
        """One line on stderr, from the main process alone."""
        if self.world.is_main:
            log(self.prefix + message)


def launch(
    recipe: str,
    config_class: type[Config],
    train: Callable[[Session[Config]], str],
    arguments: list[str] | None = None,
    *,
    results: tuple[str, ...] = RESULTS,
) -> int:
    """Run ``train`` on the config that the flags describe; ``train`` returns what it did, in one line.

    Returns:
        0, 2, 3, 4 or 143 as the module ``training.core.process`` says; ``exit.json`` holds the same.
    """
    settle_process()
    arguments = sys.argv[1:] if arguments is None else arguments
    program = f"python -m training.recipes.{recipe}"
    try:
        config = parse_flags(config_class, arguments, program=program, summary=str(config_class.__doc__))
    except ConfigError as error:
        return _refuse_flags(arguments, one_line(error))
    session = Session(recipe, config, Path(config.output), results=results)
    session.stop.install()
    code, reason = _run(session, train)
    session.stop.close()
    try:
        session.record(code, reason)
        if session.world.is_main:
            log(reason if code == STOPPED else f"{'done' if code == DONE else 'error'}: {reason}")
    except OSError:
        if code != NO_ROOM:
            raise  # else neither file takes a word, and the exit code has to say it
    session.world.leave()
    if session.lock is not None:
        session.lock.release()
    return code


def settle_process() -> None:
    """What every recipe's process is told once; a benchmark of a recipe tells its own the same."""
    collect_garbage_of_the_run()
    quieten_transformers()


def collect_garbage_of_the_run() -> None:
    """Ends the pause that the package began, and leaves out for good what was loaded in it."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def quieten_transformers() -> None:
    """Its loading bars, its report of the head that we draw and what PEFT calls in it would bury our own lines."""
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _run(session: Session[Config], train: Callable[[Session[Config]], str]) -> tuple[int, str]:
    """The exit code of a recipe and its reason."""
    try:
        session.device = choose_device(session.config.device)
        session.world = join_world(session.device.type)
        _enter(session)
        return DONE, train(session)
    except UsageError as error:
        return REFUSED, one_line(error)
    except StopRequested as error:
        return STOPPED, one_line(error)
    except TrainingError as error:
        return FAILED, _told(session, error, one_line(error))
    except Exception as error:
        if is_no_room(error):
            words = "there is no room left to write; the checkpoints are whole: make room, then go on with --resume"
            return NO_ROOM, f"{words} ({one_line(error)})"
        traceback.print_exc()
        return FAILED, _told(session, error, f"{type(error).__name__}: {one_line(error)}")


def _told(session: Session[Config], error: Exception, reason: str) -> str:
    """Why it failed: of its own, which the other processes then hear; or left alone by one of them, which may have left
    word."""
    if session.world.size == 1:
        return reason
    if not is_left_alone(error.__cause__ or error):
        session.world.announce_failure(reason)
        return reason
    told = session.world.announced_failure()
    session.peer_lost = told is None
    return told or reason


def _enter(session: Session[Config]) -> None:
    """Lock the folder and see that this run may write it; the main process looks, all hear of it.

    Raises:
        UsageError: the folder is in use, or holds something else than a run to be resumed.
    """
    refusal = None
    if session.world.is_main:
        try:
            session.lock = _claim(session.folder, resume=session.config.resume)
        except UsageError as error:
            refusal = str(error)
    if refusal := session.world.from_main(refusal):
        raise UsageError(refusal)
    session.owns = not is_finished(session)
    if session.owns and session.world.is_main:
        (session.folder / EXIT_NAME).unlink(missing_ok=True)


def _claim(folder: Path, *, resume: bool) -> FolderLock:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder} is not a folder")
    if not resume and not is_unused(folder):
        raise UsageError(f"--output {folder} is not empty (give --resume to go on with the run in it)")
    if resume and not is_unused(folder) and read_run(folder) is None and not _looks_like_a_run(folder):
        raise UsageError(f"--output {folder} holds no run to resume")
    try:
        lock = FolderLock(folder)
    except OSError as error:
        raise UsageError(f"cannot write --output {folder}: {error.strerror}") from None
    if not resume and not is_unused(folder):
        raise UsageError(f"--output {folder} is not empty: another run began in it")
    return lock


def _looks_like_a_run(folder: Path) -> bool:
    """Whether nothing else stands there than what a run leaves that never got far."""
    return {path.name for path in folder.iterdir()} <= BEFORE_A_RUN


def is_finished(session: Session[Config]) -> bool:
    """Whether the run in the folder came to its end."""
    return all((session.folder / name).exists() for name in session.results)


def check_same_run(
    session: Session[Config], *, data_sha256: str, model_fingerprint: str, others: Mapping[str, str] | None = None
) -> None:
    """See that ``--resume`` goes on with the run that the folder holds.

    Args:
        others: hashes of further inputs, by the flag that names them; ``run.json`` keeps them as ``others``.

    Raises:
        UsageError: data, base model, number of processes or a result-changing flag differ; the message names which.
    """
    run: dict[str, Any] | None = read_run(session.folder)
    if run is None:
        return
    found = differences(session.config, run["config"])
    if run["recipe"] != session.recipe:
        found.append(f"the recipe was {run['recipe']}, is {session.recipe}")
    if run["data_sha256"] != data_sha256:
        found.append(f"--data has the sha256 {data_sha256[:12]}…, had {run['data_sha256'][:12]}…")
    if run["model_fingerprint"] != model_fingerprint:
        before, now = run["config"]["model"], to_values(session.config)["model"]
        found.append(f"--model was {before}, is {now} (or its files changed)")
    kept = run.get("others", {})
    found += [f"what {flag} names has changed" for flag, value in (others or {}).items() if kept.get(flag) != value]
    if (size := run["attempts"][-1]["world_size"]) != session.world.size:
        found.append(f"the world size was {size}, is {session.world.size}")
    if found:
        raise UsageError("cannot resume: " + "; ".join(found))


def _refuse_flags(arguments: list[str], reason: str) -> int:
    """Flags that make no config: say so, also in ``exit.json`` where the folder is known and unused."""
    log(f"error: {reason}")
    folder = _output_among(arguments)
    if folder is not None and is_unused(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_exit(folder, REFUSED, reason)
        except OSError:
            pass  # the folder may be the very thing that is wrong
    return REFUSED


def _output_among(arguments: list[str]) -> Path | None:
    for place, argument in enumerate(arguments):
        if argument.startswith("--output="):
            return Path(argument.removeprefix("--output="))
        if argument == "--output" and place + 1 < len(arguments):
            return Path(arguments[place + 1])
    return None
