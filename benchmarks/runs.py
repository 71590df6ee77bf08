"""What watching runs costs: the page of a long run, the list of many, idle processes, and the trainer's own logging.

    python -m benchmarks.runs
    python -m benchmarks.runs --steps 1000000 --parts page
    python -m benchmarks.runs --parts logging --model /path/to/SmolLM2

- page, list: the WSGI handler with all middleware and the connection pool, called with a prepared environment on real
  Postgres and Valkey, so that the time is the server's alone, to the last byte; beside it the processor time of this
  process in it. Of the curves also how many points a page draws from.
- memory: resident megabytes of a web process that has answered once, and of both kinds of worker.
- logging: the share of a training step that goes into the row of metrics.jsonl and the line of the log, on the tiny
  model and, where one is named, on another.
"""

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.servers import django_on_scratch_servers
from benchmarks.workbench import session_of

PARTS = ("page", "list", "memory", "logging")
MEASURED = [
    "ppo/score_mean", "ppo/kl", "ppo/length_mean", "ppo/entropy", "ppo/eos_rate", "ppo/clip_fraction",
    "ppo/policy_loss", "ppo/value_loss", "ppo/explained_variance", "train/grad_norm", "train/learning_rate",
    "train/skipped_steps", "time/step_seconds",
]  # fmt: skip
READY_SECONDS = 120

FILL_STEPS = """
    INSERT INTO training_runmetric (run_id, step, attempt, "values", recorded_at)
    SELECT %(run)s, step, 1,
           (SELECT jsonb_object_agg(name, random()) FROM unnest(%(names)s::text[]) name WHERE step > 0)
           || CASE WHEN step %% 1000 = 0 THEN '{"validation/score": 0.5, "validation/judge": 0.5}' ELSE '{}'::jsonb END,
           now()
    FROM generate_series(%(first)s, %(last)s) step
"""


def fill(steps: int, runs: int) -> tuple[Any, int]:
    """A project with a running PPO run of so many steps and so many that ended; its engineer, and the long run's id."""
    from django.db import connection

    from annotate.models import Role
    from tests.annotate.factories import make_project, make_user
    from tests.training.django.helpers import claim, make_snapshot, queue_run
    from training.services.claims import fail, mark_running
    from training.services.metrics import StepMetrics, begin_attempt, record_metrics

    project = make_project("bench")
    engineer = make_user(project=project, role=Role.MANAGER, engineer=True)
    snapshot = make_snapshot(project)
    for number in range(runs):
        queue_run(snapshot, kind="ppo", name=f"run {number}", started_by=engineer)
        fail(claim(), reason="It ended.", report={"validation": {"score": {"value": 0.5}}, "pad": "x" * 4000})
    long = queue_run(snapshot, kind="ppo", name="long", started_by=engineer)
    held = claim()
    mark_running(held, process_id=1, process_started_at=1.0)
    begin_attempt(held, from_step=0, total_steps=2 * steps)
    batch = 5_000
    for first in range(1, steps + 1, batch):
        last = min(first + batch - 1, steps)
        with connection.cursor() as cursor:
            cursor.execute(FILL_STEPS, {"run": long.pk, "names": MEASURED, "first": first, "last": last})
        # What the worker does with them: the stretches that they close are summed up.
        ends = [StepMetrics(step, dict.fromkeys(MEASURED, 0.5)) for step in (first, last)]
        record_metrics(held, rows=ends, from_step=0)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    return engineer, long.pk


def getter(user: Any) -> Callable[[str], tuple[bytes, float, float]]:
    """Asks for an address in this process; the answer, and the milliseconds by the clock and of this process's time."""
    from django.core.wsgi import get_wsgi_application
    from django.test import RequestFactory

    handler, factory = get_wsgi_application(), RequestFactory(SERVER_NAME="localhost")
    cookie = {"Cookie": f"sessionid={session_of(user)}"}

    def get(path: str) -> tuple[bytes, float, float]:
        environ = factory.get(path, headers=cookie).environ
        environ["wsgi.input"] = io.BytesIO()
        statuses: list[str] = []
        start, cpu = time.perf_counter(), time.process_time()
        answered = handler(environ, lambda status, _headers, _exc_info=None: statuses.append(status))
        content = b"".join(answered)
        took = 1000 * (time.perf_counter() - start), 1000 * (time.process_time() - cpu)
        answered.close()
        assert statuses[0] < "3", (path, statuses, content[:500])
        return content, *took

    return get


def measure(get: Callable[[str], tuple[bytes, float, float]], title: str, path: str, rounds: int) -> bytes:
    """Prints median and p95 of an address; returns its answer."""
    content = get(path)[0]
    times = [get(path)[1:] for _ in range(rounds)]
    wall, cpu = ([one[place] for one in times] for place in (0, 1))
    p95 = statistics.quantiles(wall, n=20)[-1]
    print(
        f"{title:32}{rounds:>7}{min(wall):>9.1f}{statistics.median(wall):>11.1f}{p95:>9.1f}"
        f"{statistics.median(cpu):>11.1f}{len(content) / 1000:>9.0f}",
        flush=True,
    )
    return content


def pages(steps: int, runs: int, rounds: int, parts: list[str]) -> None:
    """The page of a long run, and the list of many."""
    import json

    engineer, long = fill(steps if "page" in parts else 100, runs if "list" in parts else 1)
    get = getter(engineer)
    print(f"{'milliseconds':32}{'calls':>7}{'least':>9}{'median':>11}{'p95':>9}{'processor':>11}{'kB':>9}")
    if "page" in parts:
        measure(get, f"page of a run, {steps:,} steps", f"/runs/{long}/", rounds)
        content = measure(get, "its curves, whole", f"/runs/{long}/curves/", rounds)
        points = {name: len(found) for name, found in json.loads(content)["points"].items()}
        print(f"  points: {sum(points.values()):,} ({points})")
        since = f"?since_step={steps - 3}&attempt=1"
        measure(get, "its curves, what is new", f"/runs/{long}/curves/{since}", rounds)
        measure(get, "its moving part", f"/runs/{long}/live/", rounds)
    if "list" in parts:
        measure(get, f"list of {runs:,} runs", "/runs/", rounds)
        measure(get, "the same, over the API", "/api/v1/runs/", rounds)


@contextmanager
def part_of_the_stack(*words: str, **environment: str) -> Iterator[psutil.Process]:
    """One part as it runs in production, `python -m webapp.stack …`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "webapp.stack", *words],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "webapp.settings", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=60)


def memory(port: int = 8399) -> None:
    """Resident memory of each process of the web and of the workers, a while after their start."""
    web = {"PLACKETT_PORT": str(port), "PLACKETT_PROCESS": "web", "PLACKETT_DEMO": "0"}
    with part_of_the_stack("web", **web) as process:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/readyz"))
        show_memory("web", process)
    for queue in ("default", "gpu"):
        with part_of_the_stack("worker", queue) as process:
            wait_until(lambda queue=queue: check("worker", queue))  # type: ignore[misc]
            show_memory(f"worker {queue}", process)


def answers(url: str) -> bool:
    """Whether an address of this machine answers."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5):
            return True
    except OSError:
        return False


def check(*words: str) -> bool:
    """Whether a part says that it is well."""
    command = [sys.executable, "-m", "webapp.stack", "check", *words]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def wait_until(is_ready: Callable[[], bool]) -> None:
    """Waits, then a moment more, until nothing of the start goes on."""
    deadline = time.monotonic() + READY_SECONDS
    while not is_ready():
        assert time.monotonic() < deadline, "it did not start"
        time.sleep(0.5)
    time.sleep(3)


def show_memory(name: str, process: psutil.Process) -> None:
    """Megabytes of the process and those that it started."""
    sizes = [one.memory_info().rss / 1e6 for one in [process, *process.children(recursive=True)]]
    torch = any("libtorch" in one.path for one in process.memory_maps())
    print(f"{name:16}{', '.join(f'{size:.0f} MB' for size in sizes)}; torch is loaded: {torch}", flush=True)


def logging_share(name: str, model: str, steps: int) -> None:
    """Trains and tells which share of the time between two steps went into telling of them."""
    from tests.training.snapshots import records, write_jsonl
    from training.core.runfolder import StepFile
    from training.recipes.configs import RewardConfig, build
    from training.recipes.launch import Session
    from training.recipes.loop import TrainingLoop
    from training.recipes.reward import train_reward

    seconds = {"turn": 0.0, "write": 0.0, "show": 0.0}
    turns = 0

    def timed(owner: type, method: str, into: str) -> None:
        plain = getattr(owner, method)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            nonlocal turns
            start = time.perf_counter()
            try:
                return plain(*arguments, **named)
            finally:
                seconds[into] += time.perf_counter() - start
                turns += into == "turn"

        setattr(owner, method, wrapped)

    for owner, method, into in (
        (TrainingLoop, "_turn", "turn"),
        (StepFile, "append", "write"),
        (TrainingLoop, "_show", "show"),
    ):
        timed(owner, method, into)
    with tempfile.TemporaryDirectory() as folder:
        data = write_jsonl(Path(folder) / "data.jsonl", records(train=64, validation=4))
        values = {"model": model, "data": str(data), "output": f"{folder}/out", "max_steps": steps, "device": "cpu"}
        config = build(RewardConfig, values | {"checkpoint_every": 10 * steps, "evaluate_every": 10 * steps})
        Path(config.output).mkdir()
        session = Session("reward", config, Path(config.output))
        with open(Path(folder) / "log", "w") as log:  # as under a worker, whose trainers log to a file
            before, sys.stderr = sys.stderr, log
            try:
                train_reward(session)
            finally:
                sys.stderr = before
    told = seconds["write"] + seconds["show"]
    print(
        f"{name:16}{turns:>6} steps{1000 * seconds['turn'] / turns:>10.2f} ms a step, of them "
        f"{1e6 * seconds['write'] / turns:.0f} µs for the row and {1e6 * seconds['show'] / turns:.0f} µs for the log: "
        f"{100 * told / seconds['turn']:.2f} %",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--steps", type=int, default=100_000, help="logged by the long run")
    parser.add_argument("--runs", type=int, default=1_000, help="in the list")
    parser.add_argument("--rounds", type=int, default=30, help="calls of each address")
    parser.add_argument("--model", help="a model folder whose step logging is held against, besides the tiny one")
    parser.add_argument("--training-steps", type=int, default=100, help="of the tiny model; a tenth of them of --model")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    os.environ["PLACKETT_PROCESS"] = "web"  # with the connection pool
    if {"page", "list", "memory"} & set(options.parts):
        with django_on_scratch_servers():
            if {"page", "list"} & set(options.parts):
                pages(options.steps, options.runs, options.rounds, options.parts)
            if "memory" in options.parts:
                del os.environ["PLACKETT_PROCESS"]
                memory()
    if "logging" in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            tiny = f"{folder}/tiny"
            subprocess.run([sys.executable, "-m", "training.recipes.tiny_model", "--output", tiny], check=True)
            logging_share("tiny", tiny, options.training_steps)
        if options.model:
            logging_share(Path(options.model).name, options.model, max(options.training_steps // 10, 2))
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
