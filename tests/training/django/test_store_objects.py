"""Objects in a real S3 server: uploads that go on where they broke off, checked downloads, words for errors."""

import hashlib
import io
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bucket import BUCKET, Line, bucket_address, client_of
from training.store.errors import Damaged, NotThere, StoreAway, StoreRefuses
from training.store.objects import ObjectStore
from training.store.patience import patiently

PART = 5 << 20  # the least that S3 takes of a part but the last


class Sent:
    """Counts the parts and objects that were sent through a client."""

    def __init__(self, client: Any) -> None:
        self.parts: list[int] = []
        self.objects: list[str] = []
        client.meta.events.register("before-call.s3.UploadPart", self._part)
        client.meta.events.register("before-call.s3.PutObject", self._object)

    def _part(self, params: dict[str, Any], **_: object) -> None:
        self.parts.append(int(params["query_string"]["partNumber"]))

    def _object(self, params: dict[str, Any], **_: object) -> None:
        self.objects.append(params["url_path"])


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line(bucket_address())
    yield line
    line.cut()


@pytest.fixture
def client(line: Line) -> Any:
    return client_of(line.address)


@pytest.fixture
def store(client: Any) -> ObjectStore:
    return ObjectStore(client, bucket=BUCKET, prefix=f"objects/{uuid.uuid4()}", part_bytes=PART)


def some_bytes(size: int) -> tuple[bytes, str]:
    content = hashlib.shake_128(b"some bytes").digest(size)
    return content, hashlib.sha256(content).hexdigest()


def nothing() -> None:
    pass


def test_an_upload_goes_on_where_it_broke_off_and_a_finished_one_is_not_sent_again(
    store: ObjectStore, client: Any, line: Line, tmp_path: Path
) -> None:
    content, sha256 = some_bytes(3 * PART + 1000)
    sent = Sent(client)
    line.cut_after(2 * PART + PART // 2)
    with pytest.raises(StoreAway, match="does not answer"):
        store.send("large", io.BytesIO(content), size=len(content), sha256=sha256, check=nothing)
    assert sent.parts == [1, 2, 3]
    line.mend()
    assert store.size_of("large") is None  # half of one is never seen
    another = ObjectStore(client, bucket=BUCKET, prefix=store.address.partition(f"{BUCKET}/")[2], part_bytes=PART)
    assert another.send("large", io.BytesIO(content), size=len(content), sha256=sha256, check=nothing)
    assert sent.parts == [1, 2, 3, 3, 4]
    assert not store.send("large", io.BytesIO(content), size=len(content), sha256=sha256, check=nothing)
    assert sent.parts == [1, 2, 3, 3, 4] and store.size_of("large") == len(content)

    store.fetch("large", tmp_path / "large", size=len(content), sha256=sha256, check=nothing)
    assert (tmp_path / "large").read_bytes() == content
    assert list(store.names("")) == [("large", len(content))]


def test_a_download_goes_on_where_it_broke_off_and_what_is_not_right_never_appears(
    store: ObjectStore, client: Any, tmp_path: Path
) -> None:
    content, sha256 = some_bytes(3 << 20)
    store.send("one", io.BytesIO(content), size=len(content), sha256=sha256, check=nothing)
    asked: list[Any] = []
    client.meta.events.register(
        "before-call.s3.GetObject", lambda params, **_: asked.append(params["headers"].get("Range"))
    )
    target = tmp_path / "one"
    (tmp_path / "one.part").write_bytes(content[: 1 << 20])
    store.fetch("one", target, size=len(content), sha256=sha256, check=nothing)
    assert target.read_bytes() == content and asked == [f"bytes={1 << 20}-"]

    target.unlink()
    store.write("one", b"x" + content[1:])
    tries: list[int] = []

    def fetch() -> None:
        tries.append(1)
        store.fetch("one", target, size=len(content), sha256=sha256, check=nothing)

    with pytest.raises(Damaged, match="is not what was put there"):
        patiently(fetch, seconds=20, check=nothing)
    assert len(tries) == 3 and list(tmp_path.iterdir()) == []
    with pytest.raises(NotThere):
        store.fetch("none", target, size=1, sha256=sha256, check=nothing)


def test_a_file_that_changed_since_it_was_hashed_is_not_put_there(store: ObjectStore) -> None:
    for size in (1000, PART + 1000):
        content, sha256 = some_bytes(size)
        with pytest.raises(Damaged, match="not what it was"):
            store.send("changed", io.BytesIO(b"x" + content[1:]), size=size, sha256=sha256, check=nothing)
        assert store.size_of("changed") is None
    assert list(store.names("")) == []


def test_a_store_that_is_away_is_waited_for_and_one_that_refuses_is_not(line: Line, store: ObjectStore) -> None:
    store.write("here", b"1")
    line.cut()
    waited: list[int] = []

    def check() -> None:
        waited.append(1)
        if len(waited) == 3:
            line.mend()

    assert patiently(lambda: store.read("here"), seconds=30, check=check) == b"1"
    assert len(waited) >= 3
    line.cut()
    with pytest.raises(StoreAway):
        patiently(lambda: store.read("here"), seconds=0.1, check=nothing)
    line.mend()
    elsewhere = ObjectStore(client_of(line.address), bucket="no-such-bucket", prefix="")
    stranger = ObjectStore(client_of(line.address, secret="another"), bucket=BUCKET, prefix="")
    for ask, told in (
        (lambda: list(elsewhere.names("")), "NoSuchBucket"),
        (lambda: elsewhere.read("x"), "NoSuchBucket"),
        (lambda: stranger.write("x", b""), "SignatureDoesNotMatch"),
    ):
        with pytest.raises(StoreRefuses, match=told):
            patiently(ask, seconds=30, check=nothing)
    assert store.remove(["here", "never"]) == 2 and list(store.names("")) == []
