"""What workers say of themselves. The clock is the database's, so machines whose clocks differ can be compared."""

from dataclasses import asdict, dataclass
from datetime import timedelta

from django.db.models.functions import Now

from training.models import Worker

KEEP = timedelta(days=1)
NAME_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: its memory in bytes, and the share of the last moment in which it was busy (0 to 1, None: unknown)."""

    name: str
    memory_bytes: int
    memory_used_bytes: int
    busy: float | None


@dataclass(frozen=True, slots=True)
class Machine:
    """What a worker has to work with, and how much of it is in use; memory in bytes."""

    processors: int
    memory_bytes: int
    memory_used_bytes: int
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a worker is; this does not change while its process lives."""

    name: str
    host: str
    process_id: int
    queues: tuple[str, ...]
    version: str
    processes: int = 1


def announce_worker(who: Identity, *, machine: Machine, up_seconds: float) -> None:
    """Writes the worker's row anew: it lives, has done so for `up_seconds`, and this is how its machine is."""
    row = Worker(
        name=who.name[:NAME_CHARACTERS],
        host=who.host[:NAME_CHARACTERS],
        process_id=who.process_id,
        queues=list(who.queues),
        version=who.version,
        processes=who.processes,
        processors=machine.processors,
        memory_bytes=machine.memory_bytes,
        memory_used_bytes=machine.memory_used_bytes,
        gpus=[asdict(gpu) for gpu in machine.gpus],
        started_at=Now() - timedelta(seconds=up_seconds),
        seen_at=Now(),
        stopped_at=None,
    )
    said = [field.name for field in Worker._meta.concrete_fields if field.name not in {"id", "name"}]
    Worker.objects.bulk_create([row], update_conflicts=True, unique_fields=["name"], update_fields=said)


def dismiss_worker(who: Identity) -> None:
    """Notes that the worker was stopped in good order; a successor of the same name is left alone."""
    mine = Worker.objects.filter(name=who.name[:NAME_CHARACTERS], host=who.host[:NAME_CHARACTERS])
    mine.filter(process_id=who.process_id).update(stopped_at=Now(), seen_at=Now())


def forget_workers() -> int:
    """Deletes the rows of workers that nothing was heard of for a day; returns how many there were."""
    deleted, _ = Worker.objects.filter(seen_at__lt=Now() - KEEP).delete()
    return deleted
