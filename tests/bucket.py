"""A real S3 server for the tests: SeaweedFS from its wheel, on loopback, one for all processes of a test run.

    with_bucket = bucket_address()      # where it is, with credentials; started by whoever asks first

It is a child of a keeper that ends it, and deletes its folder, when the test run's first process is gone, however.
`Line` is a way to it that a test can cut.
"""

import contextlib
import fcntl
import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psutil
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

KEY, SECRET, BUCKET, REGION = "plackett", "of-the-tests-alone", "plackett-tests", "us-east-1"
START_SECONDS = 120
SWITCHED_OFF = ["-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
QUICK = ["-master.electionTimeout=500ms", "-master.heartbeatInterval=200ms", "-master.volumePreallocate=false"]


def bucket_address() -> str:
    """The address of the server, which has the bucket and takes the credentials above."""
    owner = os.getppid() if os.environ.get("PYTEST_XDIST_WORKER") else os.getpid()
    home = Path(os.environ["PLACKETT_HOME"])
    with (home / "bucket.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = home / "bucket.json"
        if not told.exists():
            told.write_text(json.dumps(_start(owner)))
        return str(json.loads(told.read_text()))


def client_of(address: str, *, secret: str = SECRET) -> Any:
    """A plain client of the server."""
    config = Config(retries={"total_max_attempts": 1}, request_checksum_calculation="when_required")
    return boto3.client(
        "s3", endpoint_url=address, aws_access_key_id=KEY, aws_secret_access_key=secret, region_name=REGION,
        config=config,
    )  # fmt: skip


def storage_options(address: str, prefix: str) -> dict[str, Any]:
    """What STORAGES says of a storage in the bucket."""
    return {
        "bucket_name": BUCKET, "location": prefix, "endpoint_url": address, "access_key": KEY, "secret_key": SECRET,
        "region_name": REGION,
    }  # fmt: skip


def use_bucket(settings: Any, home: Path, *, address: str = "") -> str:
    """Has this process keep artifacts below a prefix of its own, and its disk in a folder; returns the prefix."""
    prefix = f"tests/{uuid.uuid4()}"
    options = storage_options(address or bucket_address(), prefix)
    default = {"BACKEND": "webapp.bucket.BucketStorage", "OPTIONS": options}
    settings.STORAGES = {**settings.STORAGES, "default": default}
    settings.RUNS_ROOT, settings.FETCHED_ROOT = home / "runs", home / "fetched"
    return prefix


def environment(address: str, prefix: str) -> dict[str, str]:
    """The settings of a process whose artifacts are in the bucket."""
    return {
        "PLACKETT_ARTIFACTS": f"s3://{BUCKET}/{prefix}", "PLACKETT_S3_ENDPOINT": address,
        "PLACKETT_S3_REGION": REGION, "PLACKETT_S3_ACCESS_KEY": KEY, "PLACKETT_S3_SECRET_KEY": SECRET,
    }  # fmt: skip


# --- the server ------------------------------------------------------------------------------------------------------


def _start(owner: int) -> str:
    command = [sys.executable, str(Path(__file__).resolve()), str(owner)]
    keeper = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert keeper.stdout is not None
    port = keeper.stdout.readline().strip()
    assert port, "the S3 server did not start; see the lines above"
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(BotoCoreError, ClientError):
            client_of(address).create_bucket(Bucket=BUCKET)
            return address
        assert keeper.poll() is None and time.monotonic() < deadline, "the S3 server does not answer"
        time.sleep(0.1)


def keep(owner: int) -> None:
    """The keeper: starts the server, says its port, and ends it when its owner is gone."""
    folder = Path(tempfile.mkdtemp(prefix="plackett-test-bucket-"))
    rights = {"accessKey": KEY, "secretKey": SECRET}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    (folder / "s3.json").write_text(
        json.dumps({"identities": [{"name": "tests", "credentials": [rights], "actions": actions}]})
    )
    ports = dict(zip(PLACES, free_ports(len(PLACES)), strict=True))
    program = Path(sys.executable).parent / "weed"
    command = [str(program), "-logtostderr=true", "server", f"-dir={folder}", "-filer", "-s3"]
    command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={folder / 's3.json'}", "-volume.max=20"]
    command += ["-master.volumeSizeLimitMB=64", *QUICK, *SWITCHED_OFF]
    command += [f"-{name}={port}" for name, port in ports.items()]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    print(ports["s3.port"], flush=True)
    os.close(1)
    born = psutil.Process(owner).create_time()
    while server.poll() is None and _lives(owner, born):
        time.sleep(0.5)
    server.send_signal(signal.SIGKILL)  # in good order it takes half a minute
    server.wait()
    shutil.rmtree(folder, ignore_errors=True)
    for port in ports.values():
        for left in glob.glob(f"/tmp/seaweedfs-*-{port}.sock"):
            os.unlink(left)


PLACES = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
          "s3.port", "s3.port.grpc")  # fmt: skip


def free_ports(count: int) -> list[int]:
    """So many ports that nobody listens on."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return found


def _lives(process_id: int, born: float) -> bool:
    try:
        return bool(psutil.Process(process_id).create_time() == born)
    except psutil.Error:
        return False


# --- a line that can be cut ------------------------------------------------------------------------------------------


@dataclass
class _Cut:
    after: int | None = None
    passed: int = 0


class Line:
    """A port that leads to the server. While it is cut, connections are refused; `cut_after` breaks those that are open
    once so many bytes went towards the server."""

    def __init__(self, address: str) -> None:
        self._target = int(address.rpartition(":")[2])
        self._port = free_ports(1)[0]
        self._cut = _Cut()
        self._server: socket.socket | None = None
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.mend()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def cut_after(self, count: int) -> None:
        """Cuts the line when so many more bytes were sent."""
        self._cut = _Cut(after=count)

    def cut(self) -> None:
        """Breaks what is open and refuses what comes."""
        if self._server is not None:
            with contextlib.suppress(OSError):
                self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()
            self._server = None
        for pair in self._pairs:
            for one in pair:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
        self._pairs = []

    def mend(self) -> None:
        """Lets everything pass again."""
        if self._server is None:
            self._cut = _Cut()
            self._server = socket.create_server(("127.0.0.1", self._port))
            threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = server.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._pairs.append((near, far))
                threading.Thread(target=self._pass, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(far, near, False), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, outwards: bool) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(65536):
                if outwards:
                    self._cut.passed += len(block)
                    if self._cut.after is not None and self._cut.passed > self._cut.after:
                        self.cut()
                        return
                target.sendall(block)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    keep(int(sys.argv[1]))
