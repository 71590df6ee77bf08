"""Where a run is to be carried out: in which queue, by how many processes on how many machines."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _

from training.models import Worker
from training.selectors_workers import CPU, living_workers
from training.store.opening import open_store

MOST = 64


def queue_for(config: Mapping[str, Any], *, needed: int | None, processes: int) -> str:
    """The queue of a run that names none.

    That of processors where the device is set to the CPU; else the first of the queues, unless only workers of another
    one, in the order of PLACKETT_RUN_QUEUES, have the memory.

    Args:
        needed: bytes that each process takes; None where that is not known.
    """
    queues = list(settings.RUN_QUEUES)
    if config.get("device") == "cpu" and CPU in queues:
        return CPU
    if needed is not None:
        living = {queue: list(living_workers(queue)) for queue in queues}
        if living[queues[0]] and not any(room_of(one, processes=processes) >= needed for one in living[queues[0]]):
            for queue in queues[1:]:
                if any(room_of(one, processes=processes) >= needed for one in living[queue]):
                    return queue
    return str(queues[0])


def placement_faults(*, queue: str, processes: int, nodes: int, shard: object) -> dict[str, str]:
    """What is wrong with where a run is to go, by field."""
    faults = {}
    if queue and queue not in settings.RUN_QUEUES:
        faults["queue"] = _("One of %(queues)s.") % {"queues": ", ".join(settings.RUN_QUEUES)}
    for name, value in (("processes", processes), ("nodes", nodes)):
        if not 1 <= value <= MOST:
            faults[name] = _("From 1 to %(most)d.") % {"most": MOST}
    if nodes > 1 and "nodes" not in faults and open_store() is not None and not settings.RUNS_SHARED:
        faults["nodes"] = _(
            "With artifacts in a bucket, machines that train one run together need a folder of runs that they share; "
            "see PLACKETT_RUNS_SHARED."
        )
    if shard and processes * nodes == 1:
        faults["config.shard"] = _("Needs several processes: set Processes to 2 or more.")
    return faults


def offer_fault(workers: Sequence[Worker], *, queue: str, processes: int) -> str:
    """Why no living worker of the queue can start so many processes; "" if one can, or none lives to tell."""
    most = max((worker.processes for worker in workers), default=processes)
    if processes <= most:
        return ""
    words = _("The workers of %(queue)s that are alive start at most %(most)d processes side by side.")
    return words % {"queue": queue, "most": most}


def room_of(worker: Worker, *, processes: int, device: str = "auto") -> int:
    """The memory in bytes that a process of a run finds on a worker: a GPU of its own, else its part of the machine."""
    if worker.gpus and device != "cpu":
        return max(int(gpu["memory_bytes"]) for gpu in worker.gpus)
    return int(worker.memory_bytes) // max(processes, 1)
