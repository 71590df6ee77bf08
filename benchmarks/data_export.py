"""Exports against COPY of the same joined rows: a part of ``benchmarks.data``.

    python -m benchmarks.data_export --rankings 1000000

Imported rankings of four responses each (prompts of about 300 bytes, responses of about 600, four annotators a
prompt) are read through `open_export`, as the API, the command and the page read them: as `plackett`, as `trl`, as
`trl` in Parquet, and as the pairs of the majority. Beside them COPY TO emits one joined line for each ranking: ids,
messages, the texts with their tiers, annotator and time. All on one Postgres that does not flush to disk, one after
the other, each export in a process of its own. Printed are rankings and megabytes a second, their share of COPY's
rankings a second, the growth of the process's memory, and the time to the first byte.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.servers import django_on_scratch_servers

RESPONSES = 4
ANNOTATORS = 4
PROMPT_BYTES, RESPONSE_BYTES = 300, 600
TEXT = "the a of and to in tea water leaf cup hot cold green black white sugar milk time slow pour wait drink"
WORDS = TEXT.split()
EXPORTS: dict[str, dict[str, Any]] = {
    "plackett": {"format": "plackett"},
    "trl": {"format": "trl"},
    "trl, Parquet": {"format": "trl", "options": {"as": "parquet"}},
    "trl, majority": {"format": "trl", "options": {"votes": "majority"}},
}
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


def records(rankings: int) -> Iterator[Any]:
    """Rankings to be imported, equal each time."""
    from annotate.interchange.native import record_from_object

    draw = random.Random(rankings)

    def text(size: int, start: str) -> str:
        return f"{start} {' '.join(draw.choices(WORDS, k=size // 5))}"

    names = [f"r{number}" for number in range(1, RESPONSES + 1)]
    for number in range(rankings // ANNOTATORS):
        task = {
            "external_id": f"generated-{number}",
            "prompt": text(PROMPT_BYTES, f"Question {number}:"),
            "responses": [{"id": name, "text": text(RESPONSE_BYTES, name), "model": name} for name in names],
        }
        for annotator in range(ANNOTATORS):
            ranking = [[name] for name in draw.sample(names, RESPONSES)]
            yield record_from_object(task | {"ranking": ranking, "annotator": f"annotator {annotator}"})


def prepare(rankings: int) -> None:
    """The project whose rankings are exported."""
    from annotate.services.imports import import_records
    from annotate.services.projects import create_project

    project = create_project(slug="bench", name="bench")
    report = import_records(project=project, records=records(rankings))
    assert report.written == rankings // ANNOTATORS * ANNOTATORS, report.counts()


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
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return export_once(json.loads(options.child))
    with django_on_scratch_servers():
        prepare(options.rankings)
        lines, size, copied = measure_copy()
        print(f"{'':16}{'rankings/s':>11}{'MB/s':>8}{'to COPY':>9}{'growth MB':>11}{'first ms':>10}")
        print(f"{'COPY TO':16}{lines / copied:>11.0f}{size / copied / 1e6:>8.1f}{1:>9.2f}")
        for name, asked in EXPORTS.items():
            found = measure_export(asked)
            rate = lines / found["seconds"]
            print(
                f"{name:16}{rate:>11.0f}{found['size'] / found['seconds'] / 1e6:>8.1f}{rate * copied / lines:>9.2f}"
                f"{found['grown_mb']:>11.0f}{found['first'] * 1000:>10.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
