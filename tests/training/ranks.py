"""Two real processes that have joined one world, over gloo."""

import gc
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any

import torch

from training.core.distributed import World, join_world

PATIENCE_SECONDS = 60.0


def run_ranks(context: ForkServerContext, work: Callable[..., Any], *inputs: Any) -> list[Any]:
    """Call ``work(world, *inputs)`` in two processes; by rank, what each returned or the exception it raised."""
    port = free_port()
    started = []
    for rank in range(2):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_be_rank, args=(rank, port, theirs, work, inputs))
        process.start()
        theirs.close()
        started.append((process, ours))
    try:
        return [pipe.recv() if pipe.poll(PATIENCE_SECONDS) else TimeoutError("hangs") for _, pipe in started]
    finally:
        for process, _ in started:
            process.join(5)
            process.kill()
            process.join()


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _be_rank(rank: int, port: int, pipe: Connection, work: Callable[..., Any], inputs: tuple[Any, ...]) -> None:
    told = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in told.items()})
    torch.set_num_threads(1)
    gc.freeze()  # else each collection walks all that the fork server imported
    world: World = join_world("cpu", timeout_seconds=PATIENCE_SECONDS)
    try:
        answer = work(world, *inputs)
    except Exception as error:  # the test says whether that was right
        answer = error.with_traceback(None)
        answer.__cause__ = answer.__context__ = None
    pipe.send(answer)
    world.leave()
