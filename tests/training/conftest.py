"""A tiny model on the spot, and recipes as real processes that need not load torch each time."""

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch

from training.core.local_models import make_tiny_model
from training.core.modeling import RewardModel, load_reward_model

StartRecipe = Callable[..., ForkServerProcess]

# Tiny models gain nothing from a second thread, and parallel workers lose by it.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama with a byte tokenizer, as a folder."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def tiny_reward(tiny_model: Path) -> RewardModel:
    """The tiny model with a fresh head, on CPU in float32."""
    return load_reward_model(str(tiny_model), seed=0, device=torch.device("cpu"), autocast_dtype=torch.float32)


@pytest.fixture(scope="session")
def fork_server() -> Iterator[multiprocessing.context.ForkServerContext]:
    """Processes forked from one that has imported the recipe and done nothing with it."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    # transformers imports a model's code when it is first asked for: most of a short run's time.
    context.set_forkserver_preload(
        ["training.recipes.reward", "training.recipes.ppo", "transformers.models.llama.modeling_llama"]
    )
    process = context.Process(target=int)
    process.start()
    process.join()
    if before is None:
        del os.environ["OMP_NUM_THREADS"]
    else:
        os.environ["OMP_NUM_THREADS"] = before
    yield context


@pytest.fixture
def start_recipe(fork_server: multiprocessing.context.ForkServerContext, tmp_path: Path) -> Iterator[StartRecipe]:
    """Start ``python -m training.recipes.NAME`` with these flags (None = leave out) as a process of its own."""
    started: list[ForkServerProcess] = []

    def start(environment: dict[str, str] | None = None, recipe: str = "reward", **flags: object) -> ForkServerProcess:
        inputs = (flags_from(flags), environment or {}, str(tmp_path / "stderr.txt"), recipe)
        process = fork_server.Process(target=run_as_main, args=inputs)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


@pytest.fixture
def run_recipe(tmp_path: Path) -> Callable[..., int]:
    """As ``start_recipe``, in this process and to its end; the exit code. For all that nothing kills from outside."""

    def run(recipe: str = "reward", **flags: object) -> int:
        with (
            (tmp_path / "stderr.txt").open("w") as stderr,
            redirect_stderr(stderr),
            own_signals(),
            pytest.raises(SystemExit) as ended,
        ):
            call_as_main(flags_from(flags), recipe)
        assert isinstance(ended.value.code, int)
        return ended.value.code

    return run


@contextmanager
def own_signals() -> Iterator[None]:
    """What is done on a signal is what it was, afterwards; and the recipe's thread that watches for them has ended."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    outside = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        # The reader of what is closed here sees the end of its pipe.
        if (watched := signal.set_wakeup_fd(outside)) != -1:
            os.close(watched)
        for number, handler in before.items():
            signal.signal(number, handler)


def flags_from(values: Mapping[str, object]) -> list[str]:
    """Keyword arguments as flags: True is the flag alone, None and False leave it out, a list repeats it."""
    return [
        f"--{name.replace('_', '-')}" if value is True else f"--{name.replace('_', '-')}={value}"
        for name, given in values.items()
        for value in (given if isinstance(given, list) else [given])
        if value is not None and value is not False
    ]


def run_as_main(arguments: list[str], environment: dict[str, str], stderr: str, recipe: str = "reward") -> None:
    """What ``python -m training.recipes.NAME`` does, with stderr in a file."""
    os.environ.update(environment)
    target = os.open(stderr, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(target, 2)
    call_as_main(arguments, recipe)


def call_as_main(arguments: list[str], recipe: str) -> None:
    """What Python does for ``python -m training.recipes.NAME``.

    Raises:
        SystemExit: always, with the exit code.
    """
    module = f"training.recipes.{recipe}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [recipe, *arguments])
        patch.delitem(sys.modules, module, raising=False)  # runpy warns of a module that is there under its own name
        runpy.run_module(module, run_name="__main__")
