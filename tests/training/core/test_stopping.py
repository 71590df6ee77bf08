"""A process that is asked to stop ends in time, even inside one long call that Python cannot interrupt."""

import hashlib
import json
import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from training.core.process import STOPPED, StopWatch, write_exit

FORK = multiprocessing.get_context("fork")


def busy(folder: Path, grace_seconds: float, close: bool, pipe: "Connection[Any, Any]") -> None:
    """Sits in a call into C until it is ended from outside."""
    stop = StopWatch(on_deadline=lambda reason: write_exit(folder, STOPPED, reason, step=7))
    stop.install()
    stop.grace_seconds = grace_seconds
    if close:
        stop.close()
    pipe.send("ready")
    if close:
        time.sleep(1.5)
        os._exit(5)
    hashlib.pbkdf2_hmac("sha512", b"", b"", 2**31 - 1)


def start(folder: Path, *, grace_seconds: float, close: bool = False) -> Any:
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=busy, args=(folder, grace_seconds, close, theirs))
    process.start()
    assert ours.recv() == "ready"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("grace_seconds", [0.0, 0.5])
def test_a_process_inside_a_long_call_ends_when_its_grace_is_over(
    tmp_path: Path, number: signal.Signals, grace_seconds: float
) -> None:
    process = start(tmp_path, grace_seconds=grace_seconds)
    os.kill(process.pid, number)
    try:
        process.join(60)
        assert process.exitcode == 143
    finally:
        process.kill()
    told = json.loads((tmp_path / "exit.json").read_text())
    assert (told["code"], told["step"], told["reason"]) == (143, 7, f"stopped by {number.name}")


def test_a_process_that_is_done_ends_on_its_own_terms(tmp_path: Path) -> None:
    process = start(tmp_path, grace_seconds=0.0, close=True)
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 5
    assert not (tmp_path / "exit.json").exists()
