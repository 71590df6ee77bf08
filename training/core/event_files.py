"""TensorBoard's event files, written without TensorBoard. Standard library only.

A file is a row of records. Each is the length of its content, a checksum of that, the content, and a checksum of it;
the content is an ``Event`` in the wire format of protocol buffers: when, at which step, and scalars by name.

Whoever goes on where another broke off opens a new file. It begins with a session start at the first step that is told
in it: TensorBoard forgets what it has read of that step and of all after it, so that a step which was cut off and done
again stands in its charts once.

Source: TensorFlow's ``core/lib/io/record_writer.cc``, ``core/util/event.proto`` and ``core/framework/summary.proto``;
purging: ``EventAccumulator`` of TensorBoard's ``backend/event_processing``.
"""

import re
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from training.core.following import Step

VERSION = b"brain.Event:2"
# What TensorBoard takes for an event file; it reads those of a folder in the order of their names.
NAME = re.compile(r"events\.out\.tfevents\.(\d{10,})\.plackett")
SESSION_START = 1
# Field numbers of Event, Summary.Value and SessionLog, in their order there.
WALL_TIME, STEP, FILE_VERSION, SUMMARY, SESSION_LOG = 1, 2, 3, 5, 7
VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Left:
    """What event files hold: the last step that holds, and the attempt that told what is behind the last start."""

    step: int
    attempt: int


# --- writing ----------------------------------------------------------------------------------------------------------


def scalars_event(step: int, values: Mapping[str, float], *, at: float) -> bytes:
    """A record with the measurements of a step; ``at`` in seconds since 1970."""
    told = b"".join(
        _part(1, _part(1, name.encode(errors="replace")) + _key(2, FIXED32) + struct.pack("<f", _narrow(value)))
        for name, value in values.items()
    )
    return _record(_event(step, at) + _part(SUMMARY, told))


def start_events(step: int, *, attempt: int, at: float) -> bytes:
    """The first records of a file in which an attempt tells of ``step`` and what follows it."""
    session = _key(1, VARINT) + _varint(SESSION_START) + _part(3, f"attempt {attempt}".encode())
    version = _part(FILE_VERSION, VERSION)
    return _record(_event(0, at) + version) + _record(_event(step, at) + _part(SESSION_LOG, session))


class EventFolder:
    """The event files of a run, a ``following.Sink``. This writer's own stands behind all that are there, and is opened
    when there is something to tell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: BinaryIO | None = None
        self._attempt, self._next = 0, 1

    def begin(self, *, attempt: int, from_step: int | None) -> int:
        """Cut what another attempt told beyond ``from_step`` (None: nothing was cut); the last step that is told
        already.

        Args:
            attempt: as metrics.jsonl counts.
        """
        left = left_in(self.folder)
        kept = left.step if from_step is None or left.attempt == attempt else min(left.step, from_step)
        self._attempt, self._next = attempt, kept + 1
        if kept < left.step:
            self._open()
        return kept

    def tell(self, steps: Sequence[Step]) -> None:
        """Append the measurements of steps.

        Raises:
            OSError: they could not be written.
        """
        file = self._file or self._open()
        for one in steps:
            file.write(scalars_event(one.step, one.values, at=one.at))
        file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> BinaryIO:
        self.folder.mkdir(parents=True, exist_ok=True)
        numbers = [int(found[1]) for path in self.folder.iterdir() if (found := NAME.fullmatch(path.name))]
        # Behind the others, also where the clock of their machine is ahead of this one's.
        number = max(int(time.time()), *(one + 1 for one in numbers), 0)
        self._file = open(self.folder / f"events.out.tfevents.{number:010d}.plackett", "xb")  # noqa: SIM115
        self._file.write(start_events(self._next, attempt=self._attempt, at=time.time()))
        self._file.flush()
        return self._file


def _event(step: int, at: float) -> bytes:
    return _key(WALL_TIME, FIXED64) + struct.pack("<d", at) + _key(STEP, VARINT) + _varint(step)


def _narrow(value: float) -> float:
    """Within what 32 bits hold; beyond it is infinity."""
    return value if abs(value) < 3.4e38 else float("inf") if value > 0 else float("-inf")


def _part(field: int, content: bytes) -> bytes:
    return _key(field, DELIMITED) + _varint(len(content)) + content


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + _checksum(length) + content + _checksum(content)


def _checksum(content: bytes) -> bytes:
    """CRC-32C, masked as TensorFlow does: a checksum of data that holds checksums is a weak one."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _table() -> tuple[int, ...]:
    found = []
    for value in range(256):
        for _bit in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # Castagnoli's polynomial, reversed
        found.append(value)
    return tuple(found)


_TABLE = _table()


# --- reading ----------------------------------------------------------------------------------------------------------


def left_in(folder: Path) -> Left:
    """What the event files of a folder hold, as TensorBoard understands them; a record that is not whole, which a
    killed writer leaves, ends its file."""
    step = attempt = 0
    names = sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name)) if folder.is_dir() else []
    for path in names:
        for event in _events(path):
            at = int.from_bytes(event.get(STEP, b""), "little")
            if SESSION_LOG in event:
                step, attempt = min(step, max(at - 1, 0)), _attempt_of(event[SESSION_LOG])
            elif SUMMARY in event:
                step = max(step, at)
    return Left(step, attempt)


def _attempt_of(session: bytes) -> int:
    word, _, number = dict(_fields(session)).get(3, b"").decode(errors="replace").partition(" ")
    return int(number) if word == "attempt" and number.isdecimal() else 0


def _events(path: Path) -> Iterator[dict[int, bytes]]:
    """The fields of each whole record; a varint comes as eight bytes."""
    with path.open("rb") as file:
        while len(head := file.read(12)) == 12:
            length = int.from_bytes(head[:8], "little")
            if head[8:] != _checksum(head[:8]):
                return
            content = file.read(length + 4)
            if len(content) < length + 4:
                return
            yield dict(_fields(content[:length]))


def _fields(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each field of a message that this module wrote."""
    place = 0
    while place < len(content):
        key, place = _read_varint(content, place)
        kind = key & 7
        if kind == VARINT:
            value, place = _read_varint(content, place)
            yield key >> 3, value.to_bytes(8, "little")
            continue
        size = {FIXED64: 8, FIXED32: 4}.get(kind)
        if size is None:
            size, place = _read_varint(content, place)
        yield key >> 3, content[place : place + size]
        place += size


def _read_varint(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[place] if place < len(content) else 0
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
