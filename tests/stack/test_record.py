"""The record of processes: exactly what a killed supervisor left behind is found, and nothing else."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from webapp.stack.record import RECORD_NAME, end_orphan, find_orphans, start_mark, take_lock, write_record

STUBBORN = "import signal, subprocess, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
PARENT = STUBBORN + "subprocess.Popen(['sleep', '60'])\nprint('up', flush=True)\ntime.sleep(60)"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        family = psutil.Process(process.pid).children()
        yield process
        process.kill()
        for member in family:
            if member.is_running():
                member.kill()


def test_a_recorded_process_is_found_and_ended_with_its_children(tmp_path: Path, child: subprocess.Popen[str]) -> None:
    write_record(tmp_path, url="http://x", processes=[("web", child.pid)])
    grandchild = psutil.Process(child.pid).children()[0]
    [(name, orphan)] = find_orphans(tmp_path)
    assert (name, orphan.pid) == ("web", child.pid)
    end_orphan(name, orphan, seconds=0.2)
    assert child.wait(timeout=10) != 0
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


def test_a_number_that_was_given_out_anew_is_left_alone(tmp_path: Path, child: subprocess.Popen[str]) -> None:
    write_record(tmp_path, url="http://x", processes=[("web", child.pid)])
    record = json.loads((tmp_path / RECORD_NAME).read_text())
    record["processes"][0]["started"] += "0"
    (tmp_path / RECORD_NAME).write_text(json.dumps(record))
    assert find_orphans(tmp_path) == []


def test_a_process_that_is_gone_is_not_found(tmp_path: Path, child: subprocess.Popen[str]) -> None:
    write_record(tmp_path, url="http://x", processes=[("web", child.pid)])
    child.kill()
    child.wait()
    assert find_orphans(tmp_path) == []


def test_a_broken_record_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / RECORD_NAME).write_text('{"processes": [{"na')
    assert find_orphans(tmp_path) == []


def test_a_start_mark_tells_two_lives_apart(child: subprocess.Popen[str]) -> None:
    assert start_mark(child.pid) == start_mark(child.pid)
    assert start_mark(child.pid) != start_mark(psutil.Process().ppid())


def test_only_one_supervisor_has_the_lock(tmp_path: Path) -> None:
    lock = take_lock(tmp_path)
    assert lock is not None
    assert take_lock(tmp_path) is None
    lock.close()
    assert take_lock(tmp_path) is not None
