"""What one tensor left is what the next one gets: counted in page faults, in a process of its own."""

import ctypes
import subprocess
import sys

import pytest

PAGES = 64 * 2**20 // 4096
FAULTS_OF_THE_LAST = """
import resource, sys
import torch
from training.core.allocation import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
for _ in range(30):  # the first few leave gaps between them
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64 * 2**20 // 4)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Page faults of a tensor of 64 MiB after others of its size were freed."""
    child = subprocess.run([sys.executable, "-c", FAULTS_OF_THE_LAST, how], check=True, capture_output=True, text=True)
    return int(child.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="no glibc")
def test_freed_memory_is_used_again() -> None:
    assert faults("kept") < PAGES / 100


def test_without_such_a_library_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    from training.core import allocation

    monkeypatch.setattr(allocation.ctypes, "CDLL", lambda name: object())
    assert not allocation.keep_freed_memory()
