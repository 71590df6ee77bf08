"""Items that belong together but lie apart, in one file or several: grouped by key on disk, in constant memory."""

import heapq
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from typing import IO, Any, NamedTuple, Self

RUN_CHARACTERS = 16_000_000


class Item(NamedTuple):
    """A JSON-ready value under its key, with its place in the order of coming and the line where it stood."""

    key: str
    place: int
    line: int
    value: Any


class Grouping:
    """Takes items, then gives them back by key.

    Sorted runs of 16 million characters go to temporary files and are merged, so the only thing held in memory is one
    run, and then one group. To be used in a `with` statement, which removes the files.
    """

    def __init__(self) -> None:
        self._files = ExitStack()
        self._runs: list[IO[str]] = []
        self._held: list[tuple[str, int, str]] = []
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self._files.close()

    def add(self, item: Item) -> None:
        text = json.dumps(item)
        self._held.append((item.key, item.place, text))
        self._size += len(text)
        if self._size > RUN_CHARACTERS:
            self._write_run()

    def groups(self) -> Iterator[list[Item]]:
        """Yield the items of each key together, in the order in which they came; keys in the order of their text."""
        self._write_run()
        merged = heapq.merge(*map(_items_in, self._runs))
        for _, group in groupby(merged, key=lambda item: item.key):
            yield list(group)

    def _write_run(self) -> None:
        file = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  # closed with the others
        run = self._files.enter_context(file)
        run.writelines(f"{text}\n" for _, _, text in sorted(self._held))
        run.seek(0)
        self._runs.append(run)
        self._held, self._size = [], 0


def _items_in(run: IO[str]) -> Iterator[Item]:
    return (Item(*json.loads(line)) for line in run)
