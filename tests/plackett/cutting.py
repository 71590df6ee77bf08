"""A network that breaks: a proxy on this machine that cuts some exchanges at a point drawn by seed.

An exchange is a request and its answer. Whether one is cut, and how, depends on its number and the seed alone.
"""

import random
import socket
import socketserver
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import BinaryIO

#: unsent: nothing reaches the server. begun: a part of the request does. unheard: the server has answered, and the
#: client hears nothing. partly heard: the client gets a part of the answer.
FATES = ("unsent", "begun", "unheard", "partly heard")


class Network:
    """What lies between the clients and a server.

    Attributes:
        address: where clients reach the server through it.
        fates: how many exchanges came to which end; "" is a good one.
    """

    def __init__(self, server: str, *, share: float, seed: int) -> None:
        host, port = server.split(":")
        self.server, self.address = (host, int(port)), ""
        self.fates: Counter[str] = Counter()
        self._share, self._seed = share, seed
        self._numbers = count()
        self._lock = threading.Lock()

    def draw(self) -> tuple[str, float]:
        """What becomes of the next exchange, and where within its bytes, 0 to 1."""
        with self._lock:
            chance = random.Random(f"{self._seed} {next(self._numbers)}")
            fate = chance.choice(FATES) if chance.random() < self._share else ""
            self.fates[fate] += 1
        return fate, chance.random()

    def exchange(self, request: bytes) -> tuple[bytes, bool]:
        """What the client gets to hear, and whether that is all of it."""
        fate, place = self.draw()
        if fate == "unsent":
            return b"", False
        with socket.create_connection(self.server, timeout=60) as server:
            server.sendall(request if fate != "begun" else _part(request, place))
            if fate == "begun":
                return b"", False
            answer = _message(server.makefile("rb"))
        if fate == "unheard":
            return b"", False
        return (_part(answer, place), False) if fate == "partly heard" else (answer, bool(answer))


@contextmanager
def broken_network(server: str, *, share: float, seed: int) -> Iterator[Network]:
    """Runs the proxy in threads. Every connection of a client ends when it is cut, or the client closes it."""
    network = Network(server, share=share, seed=seed)

    class Connection(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                while request := _message(self.rfile):
                    heard, whole = network.exchange(request)
                    self.wfile.write(heard)
                    if not whole:
                        return

    class Proxy(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 128

    with Proxy(("127.0.0.1", 0), Connection) as proxy:
        network.address = f"http://127.0.0.1:{proxy.server_address[1]}"
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield network
        finally:
            proxy.shutdown()
            thread.join()


def _message(stream: BinaryIO) -> bytes:
    """A whole HTTP/1.1 message that says its length; empty if there is none."""
    head = b""
    length = 0
    while line := stream.readline():
        head += line
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        if line == b"\r\n":
            return head + stream.read(length)
    return b""


def _part(message: bytes, place: float) -> bytes:
    """At least a byte of it, never all."""
    return message[: max(1, min(int(place * len(message)), len(message) - 1))]
