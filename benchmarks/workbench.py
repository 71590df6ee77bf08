"""The server's time to take an answer and hand out the next task, with five responses of 4 kB each.

    python -m benchmarks.workbench
    python -m benchmarks.workbench --tasks 300

One request (POST …/rank/submit/) is measured side by side with the two it replaced (the API's submit, then
POST …/rank/next/ with all cards), the two taking turns in one project, on real Postgres and Valkey. Every response has
been rendered once before, as on a server that is in use.

- in process: the WSGI handler with all middleware and the connection pool, called with a prepared environment, so that
  the time is the server's alone, to the last byte of the answer;
- over HTTP: the same against gunicorn on this machine, with threads as in production, from sending to the last byte.
"""

import argparse
import http.client
import io
import json
import os
import random
import statistics
import time
import uuid
from collections.abc import Callable
from typing import Any

from benchmarks.servers import django_on_scratch_servers, gunicorn

RESPONSES = 5
CHARACTERS = 4_000
SLUG = "bench"
WORDS = "the a of and to in tea water leaf cup hot cold green black white sugar milk time slow pour wait drink".split()  # noqa: SIM905
#: Sends one JSON request and returns the answer's JSON and the milliseconds it took.
Send = Callable[[str, dict[str, Any]], tuple[Any, float]]
TOKEN = "0" * 32


def markdown(draw: random.Random) -> str:
    """About 4 kB as models write it: paragraphs, a heading, a list, a table, code and a formula."""
    parts = [
        f"## {' '.join(draw.choices(WORDS, k=4))}",
        f"{draw.randrange(10**9)} " + " ".join(draw.choices(WORDS, k=90)),
        "\n".join(f"- **{draw.choice(WORDS)}**: {' '.join(draw.choices(WORDS, k=14))}" for _ in range(6)),
        "```python\ndef pour(cup: str) -> int:\n    return len(cup)  # how full\n```",
        "| leaf | minutes |\n|---|---:|\n" + "\n".join(f"| {draw.choice(WORDS)} | {n} |" for n in range(4)),
        r"The time is $t = \frac{m c \Delta T}{P}$ at most.",
    ]
    text = "\n\n".join(parts)
    while len(text) < CHARACTERS:
        text += "\n\n" + " ".join(draw.choices(WORDS, k=60))
    return text[:CHARACTERS]


def fill(tasks: int) -> tuple[Any, Any]:
    """A project with tasks for two annotators, and these two."""
    from annotate.models import User
    from annotate.pages.rendering import render_texts
    from annotate.services.projects import add_member, create_project
    from tests.annotate.factories import make_task

    rules = {"guidelines": markdown(random.Random(0)), "flags": [{"key": "wrong", "label": "Wrong"}]}
    project = create_project(slug=SLUG, name="Bench", overlap=2, rules=rules)
    draw = random.Random(1)
    for number in range(tasks):
        texts = [markdown(draw) for _ in range(RESPONSES)]
        question = f"Question {number}: {' '.join(draw.choices(WORDS, k=40))}?"
        make_task(project, texts, overlap=2, question=question)
        render_texts([question, *texts])
    people = [User.objects.create_user(username=name) for name in ("one", "two")]
    for person in people:
        add_member(project=project, user=person)
    return people[0], people[1]


class OneRequest:
    """The page as it is: the answer goes, the next task comes with its acknowledgement."""

    def __init__(self, send: Send) -> None:
        self.send = send
        first, _ = send(f"/p/{SLUG}/rank/next/", {})
        self.tasks, self.version = first["tasks"], first["guidelines"]["version"]

    def submit(self) -> float:
        task, *rest = self.tasks
        body = answer(task) | {"have": [one["lease"] for one in rest], "guidelines": self.version}
        answered, milliseconds = self.send(f"/p/{SLUG}/rank/submit/", body)
        came = answered["tasks"]
        assert [one["lease"] for one in came[: len(rest)]] == [one["lease"] for one in rest]
        self.tasks = [*rest, *came[len(rest) :]]
        assert len(self.tasks) == 2 and all("html" in one for one in self.tasks)
        return milliseconds


class TwoRequests:
    """The page as it was: the API takes the answer, then both open tasks are fetched with all their cards."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.tasks = send(f"/p/{SLUG}/rank/next/", {})[0]["tasks"]

    def submit(self) -> float:
        _, first = self.send(f"/api/v1/projects/{SLUG}/rankings/", answer(self.tasks[0]))
        following, second = self.send(f"/p/{SLUG}/rank/next/", {})
        self.tasks = following["tasks"]
        assert len(self.tasks) == 2
        return first + second


def answer(task: dict[str, Any]) -> dict[str, Any]:
    best, *others = task["order"]
    return {"lease": task["lease"], "ranking": [[best], others[:2]], "unranked": others[2:], "seconds": 60.0}


def measure(pages: dict[str, OneRequest | TwoRequests], rounds: int, warm: int) -> dict[str, list[float]]:
    """Milliseconds of each submit with what is next, the pages taking turns; the first `warm` rounds do not count."""
    times: dict[str, list[float]] = {name: [] for name in pages}
    for number in range(rounds):
        for name, page in pages.items():
            milliseconds = page.submit()
            if number >= warm:
                times[name].append(milliseconds)
    return times


# --- ways to send ----------------------------------------------------------------------------------------------------


def session_of(user: Any) -> str:
    from django.test import Client

    client = Client(SERVER_NAME="localhost")
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return str(client.cookies["sessionid"].value)


def headers_of(user: Any) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "Cookie": f"sessionid={session_of(user)}; csrftoken={TOKEN}",
        "X-CSRFToken": TOKEN,
    }


def in_process(user: Any) -> Send:
    """Calls the WSGI handler in this process."""
    from django.core.wsgi import get_wsgi_application
    from django.test import RequestFactory

    handler, factory, headers = get_wsgi_application(), RequestFactory(SERVER_NAME="localhost"), headers_of(user)

    def send(path: str, body: dict[str, Any]) -> tuple[Any, float]:
        content = json.dumps(body).encode()
        fresh = headers | {"Idempotency-Key": str(uuid.uuid4())}
        environ = factory.post(path, content, content_type="application/json", headers=fresh).environ
        environ["wsgi.input"] = io.BytesIO(content)
        statuses: list[str] = []
        start = time.perf_counter()
        answered = handler(environ, lambda status, _headers, _exc_info=None: statuses.append(status))
        content = b"".join(answered)
        took = 1000 * (time.perf_counter() - start)
        answered.close()
        assert statuses[0] < "3", (path, statuses, content)
        return json.loads(content), took

    return send


def over_http(user: Any, port: int) -> Send:
    """Over one kept connection to a server on this machine."""
    link, headers = http.client.HTTPConnection("127.0.0.1", port), headers_of(user)

    def send(path: str, body: dict[str, Any]) -> tuple[Any, float]:
        content = json.dumps(body)
        start = time.perf_counter()
        link.request("POST", path, content, headers | {"Idempotency-Key": str(uuid.uuid4())})
        answered = link.getresponse()
        came = answered.read()
        took = 1000 * (time.perf_counter() - start)
        assert answered.status < 300, (path, answered.status, came)
        return json.loads(came), took

    return send


# --- the whole -------------------------------------------------------------------------------------------------------


def report(title: str, times: dict[str, list[float]]) -> None:
    base = statistics.median(times["two requests"])
    for name, values in times.items():
        median, p95 = statistics.median(values), statistics.quantiles(values, n=20)[-1]
        print(f"{title:12}{name:14}{len(values):>8}{median:>11.1f}{p95:>9.1f}{median / base:>8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=440, help="tasks to rank; half of them in process, half over HTTP")
    options = parser.parse_args()
    os.environ["PLACKETT_PROCESS"] = "web"  # with the connection pool
    with django_on_scratch_servers():
        one, two = fill(options.tasks)
        rounds, warm = options.tasks // 2 - 4, 20
        print(f"{'':12}{'':14}{'submits':>8}{'median ms':>11}{'p95 ms':>9}{'ratio':>8}")
        pages: dict[str, OneRequest | TwoRequests]
        pages = {"two requests": TwoRequests(in_process(two)), "one request": OneRequest(in_process(one))}
        report("in process", measure(pages, rounds, warm))
        with gunicorn() as web:
            pages = {
                "two requests": TwoRequests(over_http(two, web.port)),
                "one request": OneRequest(over_http(one, web.port)),
            }
            report("over HTTP", measure(pages, rounds, warm))


if __name__ == "__main__":
    main()
