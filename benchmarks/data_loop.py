"""`next` and `rankings` over HTTP by 8 annotators at once, against two bare views: a part of ``benchmarks.data``.

    python -m benchmarks.data_loop
    python -m benchmarks.data_loop --annotators 8 --loops 200 --rounds 3

Each annotator takes the next task and ranks its four responses (prompt 300 bytes, responses 600 each), again and again,
over one kept connection; the annotators are threads of a process of their own on the same machine. The two servers
(gunicorn with threads, as production runs it; see benchmarks/bare_loop.py for the bare one) take turns on one database.
Printed are loops a second and the milliseconds of each call, client included, and the ratio.
"""

import argparse
import http.client
import json
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.data_texts import tasks as generated
from benchmarks.figures import Figure, add_figures_flag, finish
from benchmarks.servers import django_on_scratch_servers, gunicorn

PRODUCTION = {"workers": 2, "threads": 8}
WANTED_RATIO, WANTED_P95_MS = 0.5, 50


@dataclass
class Cast:
    """Who ranks what."""

    project: int
    slug: str
    version: int
    people: list[tuple[int, str]]  # user, token


@dataclass
class Times:
    """Milliseconds of each call, and the seconds of the whole."""

    next: list[float] = field(default_factory=list)
    submit: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.submit) / self.seconds


def fill(tasks: int, annotators: int) -> Cast:
    """A project with tasks of overlap 1 for everybody, and people who may rank it."""
    from annotate.interchange.native import record_from_object
    from annotate.models import User
    from annotate.selectors.projects import current_version
    from annotate.services.imports import import_records
    from annotate.services.projects import add_member, create_project
    from annotate.services.tokens import create_token

    project = create_project(slug="bench", name="Bench", overlap=1)
    records = map(record_from_object, generated(tasks))
    report = import_records(project=project, records=records)
    assert report.written == tasks, report
    people = []
    for number in range(annotators):
        user = User.objects.create_user(username=f"annotator-{number}")
        add_member(project=project, user=user)
        people.append((user.pk, create_token(user=user, name="bench", scopes=["annotate"])[1]))
    return Cast(project.pk, project.slug, current_version(project).pk, people)


class Caller:
    """One annotator's connection."""

    def __init__(self, port: int, headers: dict[str, str]) -> None:
        self.link = http.client.HTTPConnection("127.0.0.1", port)
        self.headers = {"Content-Type": "application/json", **headers}

    def post(self, path: str, body: dict[str, Any]) -> tuple[Any, float]:
        started = time.perf_counter()
        self.link.request("POST", path, json.dumps(body), self.headers)
        answer = self.link.getresponse()
        content = answer.read()
        milliseconds = 1000 * (time.perf_counter() - started)
        assert answer.status < 300, (path, answer.status, content)
        return json.loads(content), milliseconds


def rank_ours(cast: Cast, person: tuple[int, str], port: int, loops: int, times: Times) -> None:
    """The calls of DESIGN's API."""
    caller = Caller(port, {"Authorization": f"Token {person[1]}"})
    for _ in range(loops):
        found, asked = caller.post(f"/api/v1/projects/{cast.slug}/next/", {"count": 1})
        (lease,) = found["leases"]
        ids = [one["id"] for one in lease["responses"]]
        answer = {"lease": lease["id"], "ranking": [[one] for one in ids], "unranked": [], "seconds": 1.0}
        _, submitted = caller.post(f"/api/v1/projects/{cast.slug}/rankings/", answer)
        times.next.append(asked)
        times.submit.append(submitted)


def rank_bare(cast: Cast, person: tuple[int, str], port: int, loops: int, times: Times) -> None:
    """The same of the bare views."""
    caller = Caller(port, {})
    who = {"project": cast.project, "annotator": person[0]}
    for _ in range(loops):
        found, asked = caller.post("/next/", who)
        (lease,) = found["leases"]
        order = [one["id"] for one in lease["responses"]]
        answer = who | {"lease": lease["id"], "task": lease["task"], "slot": lease["slot"], "version": cast.version}
        _, submitted = caller.post("/rankings/", answer | {"order": order, "tiers": list(range(1, len(order) + 1))})
        times.next.append(asked)
        times.submit.append(submitted)


RANK = {"bare views": rank_bare, "Plackett": rank_ours}


def rank_together(name: str, cast: Cast, port: int, loops: int, results: Any) -> None:
    """All annotators at once, in this process; puts a Times into `results`."""
    times = Times()
    threads = [
        threading.Thread(target=RANK[name], args=(cast, person, port, loops, times), daemon=True)
        for person in cast.people
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times.seconds = time.perf_counter() - started
    results.put(times)


def measure(name: str, cast: Cast, port: int, loops: int) -> Times:
    """One round against one server, from a process that does nothing else."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=rank_together, args=(name, cast, port, loops, results))
    process.start()
    times: Times = results.get(timeout=600)
    process.join()
    assert len(times.submit) == loops * len(cast.people), "an annotator failed; see above"
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotators", type=int, default=8)
    parser.add_argument("--loops", type=int, default=200, help="of each annotator in each round")
    parser.add_argument("--rounds", type=int, default=3)
    add_figures_flag(parser)
    options = parser.parse_args()
    os.environ["PLACKETT_PROCESS"] = "web"  # with the connection pool
    with django_on_scratch_servers():
        tasks = options.annotators * (options.loops * options.rounds + 20) * 2
        cast = fill(tasks, options.annotators)
        found: dict[str, list[Times]] = {name: [] for name in RANK}
        with gunicorn("benchmarks.bare_loop:application", **PRODUCTION) as bare, gunicorn(**PRODUCTION) as ours:
            ports = {"bare views": bare.port, "Plackett": ours.port}
            for name, port in ports.items():
                measure(name, cast, port, 10)  # connections, plans and imports
            for _ in range(options.rounds):
                for name, port in ports.items():
                    found[name].append(measure(name, cast, port, options.loops))
    report(found)
    finish(figures(found), options.figures)


def rate_of(rounds: list[Times]) -> float:
    return statistics.median(one.rate for one in rounds)


def p95(calls: Sequence[float]) -> float:
    return statistics.quantiles(calls, n=20)[-1]


def calls_of(rounds: list[Times]) -> tuple[list[float], list[float]]:
    """Milliseconds of every `next` and of every submit."""
    return [one for times in rounds for one in times.next], [one for times in rounds for one in times.submit]


def report(found: dict[str, list[Times]]) -> None:
    print(f"{'':12}{'loops/s':>9}{'ratio':>7}{'next ms':>9}{'p95':>7}{'submit ms':>11}{'p95':>7}")
    for name, rounds in found.items():
        line = f"{name:12}{rate_of(rounds):>9.1f}{rate_of(rounds) / rate_of(found['bare views']):>7.2f}"
        for width, calls in zip((9, 11), calls_of(rounds), strict=True):
            line += f"{statistics.median(calls):>{width}.1f}{p95(calls):>7.1f}"
        print(line)


def figures(found: dict[str, list[Times]]) -> list[Figure]:
    ours = found["Plackett"]
    following, submits = calls_of(ours)
    ratio = rate_of(ours) / rate_of(found["bare views"])
    return [
        Figure("loop", "share of the bare views' loops/s", ratio, least=WANTED_RATIO),
        Figure("loop", "throughput", rate_of(ours), "loops/s"),
        Figure("loop", "95th percentile of next", p95(following), "ms", most=WANTED_P95_MS),
        Figure("loop", "95th percentile of rankings", p95(submits), "ms", most=WANTED_P95_MS),
    ]


if __name__ == "__main__":
    main()
