"""Memory and time of reading a snapshot of any size into memory-mapped arrays, and of finding it again.

    python -m benchmarks.encoding [--rankings 10000 40000]

Each size in a process of its own: prompts of 300 bytes, four responses of 600 bytes, one ranking each, words drawn at
random. The peak is the process's largest resident memory less that before it began to read (Python, torch, tokenizer).
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = [f"{a}{b}" for a in ("sun", "moon", "river", "stone", "bread") for b in ("", "s", "ing", "less", "ful", "er")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rankings", type=int, nargs="+", default=[10_000, 40_000])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(Path(options.child))))
        return 0
    print("| rankings | MB of text | MB at the peak | s to encode | s to find again |")
    print("|---:|---:|---:|---:|---:|")
    for count in options.rankings:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "snapshot.jsonl"
            write_snapshot(path, count)
            command = [sys.executable, "-m", "benchmarks.encoding", "--child", folder]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            size = path.stat().st_size / 1e6
            print(f"| {count:,} | {size:.0f} | {found['peak']:.0f} | {found['first']:.1f} | {found['again']:.1f} |")
    return 0


def write_snapshot(path: Path, count: int) -> None:
    """A snapshot of native records with texts of the benchmark's sizes."""
    draw = random.Random(0)

    def text(size: int) -> str:
        return " ".join(draw.choices(WORDS, k=size // 5))[:size]

    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            responses = [{"id": f"r{place}", "text": text(600)} for place in range(4)]
            record = {
                "format": "plackett/1", "id": f"k{number}", "task": f"t{number}", "annotator": f"a{number % 50}",
                "split": "train", "split_group": f"g{number}", "prompt": [{"role": "user", "content": text(300)}],
                "responses": responses, "ranking": [[f"r{place}"] for place in draw.sample(range(4), 4)],
            }  # fmt: skip
            file.write(json.dumps(record) + "\n")


def measure(folder: Path) -> dict[str, float]:
    """In this process: peak memory and times of encoding the snapshot twice."""
    from training.core.encoding import Rules, encode_snapshot
    from training.core.local_models import byte_tokenizer
    from training.core.records import read_rankings
    from training.core.tokens import ChatEncoder

    encoder = ChatEncoder(byte_tokenizer())
    before, times = peak_megabytes(), []
    for _ in range(2):
        started = time.monotonic()
        snapshot = read_rankings(folder / "snapshot.jsonl")
        encoded = encode_snapshot(snapshot, encoder, Rules(("train",), 4096), roots=[folder / "cache"])
        times.append(time.monotonic() - started)
    assert encoded.found and encoded.splits["train"].rankings == snapshot.read
    return {"peak": peak_megabytes() - before, "first": times[0], "again": times[1]}


def peak_megabytes() -> float:
    """The largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    sys.exit(main())
