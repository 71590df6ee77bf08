"""What this machine has and how much of it is in use, as a worker tells it. GPUs are asked through NVML, not torch."""

import logging
import os
import socket
import tomllib
from typing import Any

import psutil
from django.conf import settings
from django.db import connection

from training.runner.trainer import processors
from training.services.workers import Gpu, Machine

try:
    import pynvml
except ImportError:  # the package nvidia-ml-py is not needed for anything else
    pynvml = None

logger = logging.getLogger(__name__)


def look_at_machine() -> Machine:
    """Processors that this process may use, the machine's memory, and the GPUs that are open to this process."""
    memory = psutil.virtual_memory()
    return Machine(
        processors=processors(),
        memory_bytes=memory.total,
        memory_used_bytes=max(memory.total - memory.available, 0),
        gpus=look_at_gpus(pynvml, chosen=os.environ.get("CUDA_VISIBLE_DEVICES")),
    )


def processes_offered(machine: Machine) -> int:
    """How many processes of one run this worker starts side by side: PLACKETT_PROCESSES, else one for each GPU, else
    one for each processor."""
    return settings.WORKER_PROCESSES or len(machine.gpus) or machine.processors


def own_address() -> str:
    """Under which the workers of other machines reach this one: PLACKETT_ADDRESS, else that from which it reaches the
    database, which all of them reach."""
    if settings.WORKER_ADDRESS:
        return str(settings.WORKER_ADDRESS)
    database = connection.settings_dict
    host = str(database["HOST"])
    if not host or host.startswith("/"):
        return "127.0.0.1"
    family = socket.getaddrinfo(host, None)[0][0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((host, int(database["PORT"] or 5432)))  # nothing is sent: it only chooses the way
        return str(probe.getsockname()[0])


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def look_at_gpus(nvml: Any, *, chosen: str | None) -> tuple[Gpu, ...]:
    """The GPUs; none where there is no driver, or where it does not answer.

    Args:
        nvml: the module pynvml; None where it is not installed.
        chosen: CUDA_VISIBLE_DEVICES, numbers or UUIDs; None leaves all of them.
    """
    if nvml is None:
        return ()
    try:
        nvml.nvmlInit()
        try:
            handles = [nvml.nvmlDeviceGetHandleByIndex(place) for place in range(nvml.nvmlDeviceGetCount())]
            return tuple(_gpu(nvml, handle) for handle in _chosen(nvml, handles, chosen))
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        logger.debug("no GPU: %s", error)
        return ()


def version() -> str:
    """Plackett's own version; empty where this is no checkout."""
    try:
        project = tomllib.loads((settings.BASE_DIR / "pyproject.toml").read_text())["project"]
    except (OSError, ValueError, KeyError):
        return ""
    return str(project.get("version", ""))


def _gpu(nvml: Any, handle: Any) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    except nvml.NVMLError:  # a GPU that is cut into parts does not tell
        busy = None
    return Gpu(
        name=_text(nvml.nvmlDeviceGetName(handle)), memory_bytes=memory.total, memory_used_bytes=memory.used, busy=busy
    )


def _chosen(nvml: Any, handles: list[Any], chosen: str | None) -> list[Any]:
    """As CUDA reads it: up to the first entry that names no device. A part of a GPU stands for the whole."""
    if chosen is None:
        return handles
    by_id = {_text(nvml.nvmlDeviceGetUUID(handle)): handle for handle in handles}
    found: list[Any] = []
    for entry in map(str.strip, chosen.split(",")):
        if entry.startswith("MIG-"):
            return handles
        if entry.isdecimal() and int(entry) < len(handles):
            found.append(handles[int(entry)])
        elif entry.startswith("GPU-") and (named := [one for uuid, one in by_id.items() if uuid.startswith(entry)]):
            found.append(named[0])
        else:
            break
    return found


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
