"""Data in and out, all figures in one go: exports, the import, the loop of annotators, and `next` in a large project.

    python -m benchmarks.data                       # the sizes that the figures are about; about half an hour
    python -m benchmarks.data --quick               # small ones, to see that it runs; the ratios mean little
    python -m benchmarks.data --rankings 100000 --only data_export

Each part runs alone, too, with more to read: data_export, data_import, data_loop (beside bare_loop) and queue. They
run one after the other, each in a process and on a database of its own. At the end stands one table: each figure, what
is wanted of it, and whether that is met. Every ratio is of two things measured in one part's run on one machine, so
it can be compared between machines; megabytes and milliseconds are of this one, as it was loaded at that time.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.figures import Figure, load, read, show

#: Each part with its flags: of this command, of the part's own, the size wanted, and the quick one.
PARTS: dict[str, tuple[tuple[str, str, int, int, str], ...]] = {
    "data_export": (("--rankings", "--rankings", 1_000_000, 4_000, "rankings that are exported"),),
    "data_import": (("--prompts", "--prompts", 100_000, 2_000, "prompts that are imported, four responses each"),),
    "data_loop": (
        ("--annotators", "--annotators", 8, 8, "who rank at once"),
        ("--loops", "--loops", 200, 20, "rankings of each in each round"),
        ("--rounds", "--rounds", 3, 1, "rounds against each server"),
    ),
    "queue": (
        ("--tasks", "--tasks", 1_000_000, 20_000, "tasks of the large project"),
        ("--small-tasks", "--small", 1_000, 1_000, "tasks of the small project"),
        ("--calls", "--calls", 300, 50, "calls of `next` for each caller and size"),
    ),
}


def main() -> int:
    options = parser().parse_args()
    print(f"{os.cpu_count()} processors, load {load()}", flush=True)
    found: list[Figure] = []
    failed = []
    for part in options.only:
        figures = run(part, options)
        found += figures
        failed += [] if figures else [part]
    print("\n=== all figures")
    show(found)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="small sizes for all that is not given")
    made.add_argument(
        "--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART", help=", ".join(PARTS)
    )
    for flags in PARTS.values():
        for flag, _, size, quick, what in flags:
            made.add_argument(flag, type=int, help=f"{what} ({size:,}; quick {quick:,})")
    return made


def run(part: str, options: argparse.Namespace) -> list[Figure]:
    """One part's figures; none if it failed."""
    command = [sys.executable, "-m", f"benchmarks.{part}"]
    for flag, own, size, quick, _ in PARTS[part]:
        given = getattr(options, flag.removeprefix("--").replace("-", "_"))
        command += [own, str(given if given is not None else quick if options.quick else size)]
    print(f"\n=== {' '.join(command[1:])} (load {load()})", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        subprocess.run([*command, "--figures", str(path)], check=False)
        return read(path)


if __name__ == "__main__":
    sys.exit(main())
