"""Exports against COPY of the same joined rows: a part of ``benchmarks.data``.

    python -m benchmarks.data_export --rankings 1000000

Imported rankings of four responses each (prompts of about 300 bytes, responses of about 600, four annotators a
prompt) are read through `open_export`, as the API, the command and the page read them: as `plackett`, as `trl`, as
`trl` in Parquet, and as the pairs of the majority. Beside them COPY TO emits one joined line for each ranking: ids,
messages, the texts with their tiers, annotator and time. All on one Postgres that does not flush to disk, one after
the other, each export in a process of its own; the feed is counted ahead, as the clock has it done. Printed are
rankings and megabytes a second, their share of COPY's rankings a second (the quicker of two), the growth of the
process's memory, and the time to the first byte.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

from benchmarks.figures import Figure, add_figures_flag, finish
from benchmarks.servers import django_on_scratch_servers

WANTED_SHARE, WANTED_GROWTH_MB, WANTED_FIRST_MS = 0.25, 50, 300
EXPORTS: dict[str, dict[str, Any]] = {
    "plackett": {"format": "plackett"},
    "trl": {"format": "trl"},
    "trl, Parquet": {"format": "trl", "options": {"as": "parquet"}},
    "trl, majority": {"format": "trl", "options": {"votes": "majority"}},
}
WANTED_OF = ("plackett", "trl")
JOINED = """
COPY (
    SELECT c.number, r.id, r.task_id, p.messages, g.split, u.username, r.strengths, r.submitted_at,
        array_agg(x.key ORDER BY x.id), array_agg(x.text ORDER BY x.id), array_agg(e.tier ORDER BY x.id)
    FROM annotate_change c
    JOIN annotate_ranking r ON r.id = c.ranking_id
    JOIN annotate_user u ON u.id = r.annotator_id
    JOIN annotate_rankingtask t ON t.id = r.task_id
    JOIN annotate_prompt p ON p.id = t.prompt_id
    JOIN annotate_splitgroup g ON g.id = p.split_group_id
    JOIN annotate_entry e ON e.ranking_id = r.id
    JOIN annotate_response x ON x.id = e.response_id
    GROUP BY c.number, r.id, p.id, g.id, u.id
    ORDER BY c.number
) TO STDOUT
"""


def prepare(rankings: int) -> None:
    """The project whose rankings are exported; tables as autovacuum leaves them, so that no reader tidies up first."""
    from django.db import connection

    from annotate.services import feed_blocks
    from annotate.services.projects import create_project
    from benchmarks.data_rows import write_rankings

    started = time.perf_counter()
    write_rankings(create_project(slug="bench", name="bench"), rankings)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    print(f"{rankings:,} rankings written in {time.perf_counter() - started:.0f} s", flush=True)
    started = time.perf_counter()
    blocks = feed_blocks.count_ahead()  # as the clock does once a minute
    print(f"{blocks} blocks of the feed counted ahead in {time.perf_counter() - started:.0f} s", flush=True)


def measure_copy() -> tuple[int, int, float]:
    """Lines, bytes and seconds of COPY TO."""
    from django.db import connection

    lines = size = 0
    started = time.perf_counter()
    with connection.cursor() as cursor, cursor.copy(JOINED) as copy:
        for block in copy:
            size += len(block)
            lines += bytes(block).count(b"\n")
    return lines, size, time.perf_counter() - started


def export_once(asked: dict[str, Any]) -> None:
    """Runs in the child: reads one export to its end and prints what it took as a line of JSON."""
    import django

    django.setup()
    from annotate.models import Project
    from annotate.services.exports import open_export

    project = Project.objects.get(slug="bench")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    export = open_export(project, **asked)
    lines = iter(export.lines)
    size = len(next(lines))
    first = time.perf_counter() - started
    for block in lines:
        size += len(block)
    seconds = time.perf_counter() - started
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"size": size, "seconds": seconds, "first": first, "grown_mb": grown / 1024}))


def measure_export(asked: dict[str, Any]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.data_export", "--child", json.dumps(asked)]
    done = subprocess.run(command, env=os.environ.copy(), stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rankings", type=int, default=1_000_000)
    parser.add_argument("--only-wanted", action="store_true", help="the two formats that figures are wanted of")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    add_figures_flag(parser)
    options = parser.parse_args()
    if options.child:
        return export_once(json.loads(options.child))
    with django_on_scratch_servers():
        prepare(options.rankings)
        lines, size, before = measure_copy()
        chosen = WANTED_OF if options.only_wanted else EXPORTS
        found = {name: measure_export(EXPORTS[name]) for name in chosen}
        # Whichever of the two was quicker: the exports are measured against the machine at its best.
        copied = min(before, measure_copy()[2])
    report(found, lines, size, copied)
    finish(figures(found, copied), options.figures)


def report(found: dict[str, dict[str, float]], lines: int, size: int, copied: float) -> None:
    print(f"{'':16}{'rankings/s':>11}{'MB/s':>8}{'to COPY':>9}{'growth MB':>11}{'first ms':>10}")
    print(f"{'COPY TO':16}{lines / copied:>11.0f}{size / copied / 1e6:>8.1f}{1:>9.2f}")
    for name, one in found.items():
        print(
            f"{name:16}{lines / one['seconds']:>11.0f}{one['size'] / one['seconds'] / 1e6:>8.1f}"
            f"{copied / one['seconds']:>9.2f}{one['grown_mb']:>11.0f}{one['first'] * 1000:>10.0f}"
        )


def figures(found: dict[str, dict[str, float]], copied: float) -> list[Figure]:
    """What is wanted of the two formats that the figures are about."""
    told = []
    for name in WANTED_OF:
        one, part = found[name], f"export, {name}"
        told += [
            Figure(part, "share of COPY's rankings/s", copied / one["seconds"], least=WANTED_SHARE),
            Figure(part, "growth of the process", one["grown_mb"], "MB", most=WANTED_GROWTH_MB),
            Figure(part, "first byte", one["first"] * 1000, "ms", most=WANTED_FIRST_MS),
        ]
    return [*told, Figure("export, trl", "throughput", found["trl"]["size"] / found["trl"]["seconds"] / 1e6, "MB/s")]


if __name__ == "__main__":
    main()
