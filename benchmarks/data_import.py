"""Importing through the API against the rows' own COPY: a part of ``benchmarks.data``.

    python -m benchmarks.data_import --prompts 100000

A generated file (prompts of about 300 bytes, four responses of about 600 each, overlap 1) is posted over HTTP as JSON
lines to the web server that production runs (gunicorn, its settings), into an empty project of an empty database. Then
every row that this wrote, of every table, is copied out, and copied into an equal empty database with COPY FROM: the
same tables with their constraints and indexes, one COPY a table, in one transaction; once with our triggers, which are
rules too, once without. Both on one Postgres, which does not flush to disk, one after the other. Printed are prompts a
second, the ratio, and what the web process grew by: the file is one request.
"""

import argparse
import json
import os
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.data_texts import tasks
from benchmarks.figures import Figure, add_figures_flag, finish
from benchmarks.servers import Web, django_on_scratch_servers, gunicorn, peak_of_workers

PRODUCTION = {"workers": 2, "threads": 8}
WANTED_SHARE = 0.30

#: What the import writes, in the order in which rows may be written.
TABLES = (
    "annotate_splitgroup", "annotate_importbatch", "annotate_prompt", "annotate_response", "annotate_rankingtask",
    "annotate_taskresponse", "annotate_slot",
)  # fmt: skip


def write_lines(path: Path, prompts: int) -> None:
    """The file that is imported, equal each time."""
    with path.open("w") as file:
        for task in tasks(prompts):
            file.write(json.dumps(task) + "\n")


def post(url: str, token: str, path: Path) -> dict[str, Any]:
    """Sends the file as one request, as a stream."""
    headers = {"Authorization": f"Token {token}", "Content-Type": "application/x-ndjson"}
    with path.open("rb") as body:
        headers["Content-Length"] = str(path.stat().st_size)
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=3600) as answer:
            return dict(json.loads(answer.read()))


def measure_import(web: Web, token: str, path: Path) -> tuple[float, float]:
    """Seconds of the import from the first byte sent to the report, and the megabytes that a web process grew by."""
    url = f"{web.url}/api/v1/projects/bench/prompts/"
    warm_up(f"{url}?dry_run=1", token, path.with_suffix(".one"))
    before = peak_of_workers(web)
    started = time.perf_counter()
    report = post(url, token, path)
    seconds = time.perf_counter() - started
    assert report["written"] == report["read"] > 0, report
    return seconds, (peak_of_workers(web) - before) / 1e6


def warm_up(url: str, token: str, path: Path) -> None:
    """Connections, plans and modules in every process of the server: so many requests at once that each gets some."""
    at_once = 2 * PRODUCTION["workers"] * PRODUCTION["threads"]
    with ThreadPoolExecutor(at_once) as clients:
        for _ in range(2):
            list(clients.map(lambda _: post(url, token, path), range(at_once)))


def copy_out(folder: Path) -> None:
    """Every row of every table that the import wrote, as COPY's own text."""
    from django.db import connection

    connection.ensure_connection()
    for table in TABLES:
        with (
            connection.cursor() as cursor,
            (folder / table).open("wb") as file,
            cursor.copy(f"COPY {table} TO STDOUT") as copy,
        ):
            for block in copy:
                file.write(block)


def measure_copy(folder: Path, *, triggers: str) -> float:
    """Seconds of COPY FROM of these files into the emptied tables, one transaction; our triggers ENABLE or DISABLE."""
    from django.db import connection, transaction

    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {', '.join(TABLES)} CASCADE")
        for table in TABLES:
            cursor.execute(f"ALTER TABLE {table} {triggers} TRIGGER USER")
    started = time.perf_counter()
    with transaction.atomic(), connection.cursor() as cursor:
        for table in TABLES:
            with cursor.copy(f"COPY {table} FROM STDIN") as copy, (folder / table).open("rb") as file:
                while block := file.read(1 << 16):
                    copy.write(block)
    return time.perf_counter() - started


def counts() -> dict[str, int]:
    """Rows of each table."""
    from django.db import connection

    with connection.cursor() as cursor:
        return {table: cursor.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}


def prepare() -> str:
    """An empty project and a token that may write into it."""
    from annotate.models import User
    from annotate.services.projects import create_project
    from annotate.services.tokens import create_token

    create_project(slug="bench", name="bench")
    loader = User.objects.create_superuser("loader", password=None)
    return create_token(user=loader, name="bench", scopes=["write"])[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=100_000)
    add_figures_flag(parser)
    options = parser.parse_args()
    os.environ["PLACKETT_PROCESS"] = "web"  # with the connection pool
    with tempfile.TemporaryDirectory() as name, django_on_scratch_servers():
        folder = Path(name)
        write_lines(folder / "lines.jsonl", options.prompts)
        write_lines(folder / "lines.one", 1)
        token = prepare()
        with gunicorn(**PRODUCTION) as web:
            ours, grown = measure_import(web, token, folder / "lines.jsonl")
        written = counts()
        copy_out(folder)
        bare = measure_copy(folder, triggers="ENABLE")
        assert counts() == written
        unguarded = measure_copy(folder, triggers="DISABLE")
        assert counts() == written
        size = (folder / "lines.jsonl").stat().st_size / 1e6
    print(f"one POST of {size:.0f} MB; {', '.join(f'{name[9:]} {rows}' for name, rows in written.items())}")
    print(f"{'':28}{'prompts/s':>11}{'seconds':>9}{'import to it':>14}")
    for title, seconds in (("COPY FROM", bare), ("COPY FROM, our triggers off", unguarded), ("import", ours)):
        print(f"{title:28}{options.prompts / seconds:>11.0f}{seconds:>9.1f}{seconds / ours:>14.2f}")
    told = [
        Figure("import", "share of COPY FROM's prompts/s", bare / ours, least=WANTED_SHARE),
        Figure("import", "throughput", options.prompts / ours, "prompts/s"),
        Figure("import", "growth of a web process", grown, "MB"),
    ]
    finish(told, options.figures)


if __name__ == "__main__":
    main()
