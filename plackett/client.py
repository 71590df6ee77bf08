"""The client: one method for each job. Answers are the API's own JSON; see docs/api.md."""

import json
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from plackett.batches import batches_of, lines_of
from plackett.errors import Disconnected, RunFailed
from plackett.transport import ATTEMPTS, Transport

NDJSON = "application/x-ndjson"
SUCCEEDED, OVER = "succeeded", {"succeeded", "failed", "cancelled"}
Json = dict[str, Any]


@dataclass
class Pushed:
    """What became of the records that were sent.

    Attributes:
        counts: `read`, `written`, `unchanged`, `conflicts`, `skipped` and what else the server counted.
        batches: imports that a manager can undo while nothing of them has been ranked.
        errors: {"line", "reason", …} of records that were not taken; lines count from 1 over everything sent.
    """

    counts: dict[str, int] = field(default_factory=dict)
    errors: list[Json] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Every record stands in the project now."""
        return not self.errors and not self.counts.get("skipped") and not self.counts.get("conflicts")


@dataclass
class Export:
    """An export that is being read.

    Attributes:
        count: how many lines there are.
        cursor: to be given back as `since` once all of them were read.
        lines: the lines, each with its newline; raises Disconnected if they are not whole.
    """

    count: int
    cursor: str
    lines: Iterator[bytes]


class Client:
    """A server and a token. `with Client(…) as client:` closes its connections.

    Args:
        server: its address, such as http://127.0.0.1:8000.
        token: `pk_…`; login.known() has the one of `plackett login`.
        attempts: how often a request is sent before it is given up.

    Raises (all methods):
        Refused: the server said no; `status`, `code` and `fields` say why.
        Disconnected: it cannot be reached.
    """

    def __init__(self, server: str, token: str, *, attempts: int = ATTEMPTS) -> None:
        self._transport = Transport(server, token, attempts=attempts)
        self.server = self._transport.server

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_problem: object) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    # --- projects -----------------------------------------------------------------------------------------------------

    def me(self) -> Json:
        """Whose token this is, and what it may be used for."""
        return dict(self._transport.get("/api/v1/me/"))

    def projects(self) -> Iterator[Json]:
        """The projects that the token's user is a member of."""
        return self._pages("/api/v1/projects/")

    # --- prompts in ---------------------------------------------------------------------------------------------------

    def push_prompts(
        self,
        project: str,
        records: Iterable[Mapping[str, Any]] | str | Path | IO[bytes],
        *,
        format: str = "plackett",
        overlap: int | None = None,
        priority: int | None = None,
        dry_run: bool = False,
        progress: Callable[[int], object] = lambda records: None,
    ) -> Pushed:
        """Sends records, some megabytes at a time; sending them again changes nothing.

        Args:
            records: JSON-like objects; or a file of one JSON object a line, by name or open in binary, also gzipped.
            overlap: how many annotators rank each new task; the project's overlap if None.
            priority: 0 urgent, 1 high, 2 normal, 3 low.
            dry_run: only say what would become of them.
            progress: called with how many records were sent, after each request.
        """
        pushed = Pushed()
        options = {"format": format, "overlap": overlap, "priority": priority, "dry_run": 1 if dry_run else None}
        for batch in batches_of(lines_of(records)):
            # Fresh each time: sent again on another day, records are looked at again, not answered from memory.
            key = str(uuid.uuid4())
            path = f"/api/v1/projects/{project}/prompts/"
            answer = self._transport.post_bytes(path, batch.body, content_type=NDJSON, key=key, **options)
            _add(pushed, answer, first_line=batch.first_line)
            progress(batch.lines)
        return pushed

    # --- preferences out ----------------------------------------------------------------------------------------------

    @contextmanager
    def export(
        self, project: str, *, format: str = "plackett", since: str | None = None, **options: str | None
    ) -> Iterator[Export]:
        """Opens an export: `with client.export("demo", format="trl") as export: for line in export.lines: …`.

        Args:
            since: `cursor` of the export before: only what is new.
            options: `annotator_kinds="human,machine"`, `split`, `ties`, `margin`, `votes` … as in docs/formats.md.
        """
        path = f"/api/v1/projects/{project}/export/"
        with self._transport.stream(path, format=format, since=since, **options) as response:
            count = int(response.headers["Plackett-Count"])
            yield Export(count, response.headers["Plackett-Cursor"], _whole(response.iter_bytes(), count))

    def download_parquet(
        self,
        project: str,
        file: IO[bytes],
        *,
        format: str = "trl",
        progress: Callable[[int], object] = lambda size: None,
        **options: str | None,
    ) -> int:
        """Writes an export as Parquet into a file that is open in binary; returns how many rows it has.

        A Parquet file ends with what says where its rows are, so one that broke off cannot be read.

        Args:
            progress: called with the number of bytes that came, again and again.
        """
        path = f"/api/v1/projects/{project}/export/"
        with self._transport.stream(path, format=format, **options, **{"as": "parquet"}) as response:
            for block in response.iter_bytes():
                file.write(block)
                progress(len(block))
            return int(response.headers["Plackett-Count"])

    def preferences(self, project: str, *, format: str = "plackett", **options: Any) -> Iterator[Json]:
        """The lines of an export as objects; see export for the options."""
        with self.export(project, format=format, **options) as export:
            for line in export.lines:
                yield json.loads(line)

    def dataset(self, project: str, *, format: str = "trl", **options: Any) -> Any:
        """An export as a `datasets.Dataset`, in memory. Needs the package `datasets`.

        By way of Parquet, which says what columns there are: a list of rows has those of its first row alone. Of the
        format `plackett` lists and objects are JSON texts then.
        """
        import datasets  # heavy, and not everybody's

        with tempfile.TemporaryDirectory(prefix="plackett-") as scratch:
            path = Path(scratch) / "export.parquet"
            with open(path, "wb") as file:
                self.download_parquet(project, file, format=format, **options)
            return datasets.Dataset.from_parquet(str(path), cache_dir=scratch, keep_in_memory=True)

    def snapshots(self, project: str) -> Iterator[Json]:
        """The manifests of the project's snapshots, oldest first."""
        return self._pages(f"/api/v1/projects/{project}/snapshots/")

    def freeze(self, project: str, name: str, **filters: Any) -> Json:
        """Freezes a snapshot and returns its manifest; `filters` as in docs/api.md."""
        body = {"name": name, "filters": filters}
        return dict(self._transport.post(f"/api/v1/projects/{project}/snapshots/", body))

    # --- ranking ------------------------------------------------------------------------------------------------------

    def next_leases(self, project: str, count: int = 1) -> list[Json]:
        """Tasks to rank: those that the caller holds, then new ones, up to `count` in all. Empty: nothing is left."""
        return list(self._transport.post(f"/api/v1/projects/{project}/next/", {"count": count})["leases"])

    def submit_ranking(self, project: str, lease: str, ranking: list[list[str]], **answer: Any) -> Json:
        """Answers a lease: tiers of response ids, best first. `answer`: `unranked`, `strengths`, `rationale` …"""
        body = {"lease": lease, "ranking": ranking} | answer
        return dict(self._transport.post(f"/api/v1/projects/{project}/rankings/", body))

    # --- machines -----------------------------------------------------------------------------------------------------

    def machines(self, project: str) -> Iterator[Json]:
        """The accounts that rank by program in the project. For its managers, as all of this."""
        return self._pages(f"/api/v1/projects/{project}/machines/")

    def add_machine(self, project: str, name: str, **options: Any) -> Json:
        """Makes one; the answer has its `token`, this once. `options`: `open_lease_limit`, `fills_places`."""
        made = dict(self._transport.post(f"/api/v1/projects/{project}/machines/", {"name": name} | options))
        # The first answer was lost on the way, and the server has kept no token to tell again.
        return made if made["token"] else self.renew_machine_token(project, made["id"])

    def renew_machine_token(self, project: str, machine: int) -> Json:
        """A new `token`, told this once; the one before stops working. Brings back one that was removed."""
        made: Json = {}
        while not made.get("token"):
            made = dict(self._transport.post(f"/api/v1/projects/{project}/machines/{machine}/token/"))
        return made

    def remove_machine(self, project: str, machine: int) -> None:
        """Its token ends, and what it holds goes back to the queue; its rankings stay."""
        self._transport.delete(f"/api/v1/projects/{project}/machines/{machine}/")

    # --- runs and models ----------------------------------------------------------------------------------------------

    def start_run(self, project: str, kind: str, *, snapshot: int, base_model: str, **options: Any) -> Json:
        """Queues a run: `options` are `config`, `name`, `queue`, `reward_model` … as in docs/api.md."""
        body = {"project": project, "kind": kind, "snapshot": snapshot, "base_model": base_model} | options
        return dict(self._transport.post("/api/v1/runs/", body))

    def run(self, run: int) -> Json:
        """Where a run stands."""
        return dict(self._transport.get(f"/api/v1/runs/{run}/"))

    def wait_for_run(
        self,
        run: int,
        *,
        seconds: float | None = None,
        every: float = 2.0,
        progress: Callable[[Json], object] = lambda run: None,
    ) -> Json:
        """Waits until a run is over, and returns it.

        Args:
            seconds: the longest to wait; None waits as long as it takes.
            every: seconds between two looks.
            progress: called with the run after each look.

        Raises:
            RunFailed: it failed or was cancelled.
            TimeoutError: it is not over; it goes on.
        """
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            now = self.run(run)
            progress(now)
            if now["state"] == SUCCEEDED:
                return now
            if now["state"] in OVER:
                raise RunFailed(now)
            if until is not None and time.monotonic() + every > until:
                raise TimeoutError(f"Run {run} is {now['state']} after {seconds:.0f} s; it goes on without you.")
            time.sleep(every)

    def models(self, project: str | None = None) -> Iterator[Json]:
        """The registry's models that the caller may see."""
        return self._pages("/api/v1/models/", project=project)

    def download_model(self, model: int, file: IO[bytes]) -> None:
        """Writes a model's folder, as a tar archive, into a file that is open in binary."""
        with self._transport.stream(f"/api/v1/models/{model}/download/") as response:
            for block in response.iter_bytes():
                file.write(block)

    def _pages(self, path: str, **params: Any) -> Iterator[Json]:
        cursor = None
        while True:
            page = self._transport.get(path, cursor=cursor, **params)
            yield from page["results"]
            cursor = page["next"]
            if cursor is None:
                return


def _add(pushed: Pushed, answer: Mapping[str, Any], *, first_line: int) -> None:
    for name, value in answer.items():
        if name == "batch":
            pushed.batches += [value] if value is not None else []
        elif isinstance(value, int) and not isinstance(value, bool):
            pushed.counts[name] = pushed.counts.get(name, 0) + value
    for error in answer.get("errors", ()):
        line = error.get("line")
        pushed.errors.append(dict(error) | ({"line": line + first_line - 1} if isinstance(line, int) else {}))


def _whole(blocks: Iterator[bytes], count: int) -> Iterator[bytes]:
    rest, seen = b"", 0
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            seen += 1
            yield line + b"\n"
    if rest or seen != count:
        raise Disconnected(f"{seen} lines came instead of {count}: something broke on the way. Ask again.")
