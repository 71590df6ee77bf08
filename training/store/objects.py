"""Objects of an S3-compatible bucket: uploads that go on where they broke off, downloads that are checked.

Nothing here tries again by itself for long: see `patience`. Every object of ours is named by what it holds, so one that
is there with the right length is never sent again, and two that send the same harm nobody.
"""

import base64
import hashlib
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from training.store.errors import Damaged, NotThere, StoreAway, StoreError, StoreRefuses
from training.store.patience import Check

PART_BYTES = 16 << 20
MOST_PARTS = 9_000  # S3 takes 10,000
BLOCK_BYTES = 1 << 20
DELETED_AT_ONCE = 1_000
CHANGED = "{name} cannot be put into the store: the file is not what it was when it was written."
BUSY = {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "OperationAborted", "RequestTimeTooSkewed"}


class ObjectStore:
    """The objects of a bucket below a prefix, by their names without it."""

    def __init__(self, client: Any, *, bucket: str, prefix: str, part_bytes: int = PART_BYTES) -> None:
        self._client, self.bucket = client, bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.part_bytes = part_bytes

    @property
    def address(self) -> str:
        """As the setting names it."""
        return f"s3://{self.bucket}/{self._prefix}".rstrip("/")

    # --- reading -----------------------------------------------------------------------------------------------------

    def size_of(self, name: str) -> int | None:
        """How many bytes an object has; None if there is none."""
        try:
            with self._asking(name):
                return int(self._client.head_object(**self._at(name))["ContentLength"])
        except NotThere:
            return None

    def read(self, name: str) -> bytes:
        """A small object.

        Raises:
            NotThere, StoreError: there is none, or it could not be read.
        """
        with self._asking(name):
            content: bytes = self._client.get_object(**self._at(name))["Body"].read()
        return content

    def blocks(self, name: str, *, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`, block by block.

        Raises:
            NotThere, StoreError: there is no such object, or the connection broke.
        """
        wanted = {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"} if start or stop is not None else {}
        with self._asking(name):
            body = self._client.get_object(**self._at(name), **wanted)["Body"]
            try:
                while block := body.read(BLOCK_BYTES):
                    yield block
            finally:
                body.close()

    def names(self, below: str) -> Iterator[tuple[str, int]]:
        """Name and size of every object whose name begins so, in the order of names."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._prefix + below)
        with self._asking(below):
            for page in pages:
                for one in page.get("Contents", ()):
                    yield one["Key"].removeprefix(self._prefix), int(one["Size"])

    def fetch(self, name: str, target: Path, *, size: int, sha256: str, check: Check) -> None:
        """Brings an object to a file that appears under its name when all of it is right.

        A part of it that an earlier attempt left beside it is gone on with.

        Raises:
            Damaged: what came is not what the hash says; the part is thrown away, so the next attempt begins anew.
            NotThere, StoreError, OSError: it could not be brought.
        """
        draft = target.with_name(f"{target.name}.part")
        target.parent.mkdir(parents=True, exist_ok=True)
        digest, have = hashlib.sha256(), 0
        with draft.open("a+b") as file:
            file.seek(0)
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
                have += len(block)
            if have > size:
                file.truncate(0)
                digest, have = hashlib.sha256(), 0
            for block in self.blocks(name, start=have) if have < size else ():
                check()
                digest.update(block)
                file.write(block)
                have += len(block)
            file.flush()
            os.fsync(file.fileno())
        if have != size or digest.hexdigest() != sha256:
            draft.unlink()
            raise Damaged(f"{self.address}/{name} is not what was put there ({have} bytes, sha256 differs).", name=name)
        os.replace(draft, target)

    # --- writing -----------------------------------------------------------------------------------------------------

    def write(self, name: str, content: bytes) -> None:
        """A small object, replacing what is there."""
        with self._asking(name):
            self._client.put_object(**self._at(name), Body=content, ContentMD5=_md5(content))

    def send(self, name: str, file: BinaryIO, *, size: int, sha256: str, check: Check) -> bool:
        """Puts the first `size` bytes of a file there, unless an object of that length is; whether it sent anything.

        A large file goes in parts; those that an earlier attempt put there, of whatever process, are not sent again.

        Raises:
            Damaged: the file is not what the hash says; nothing appears.
            StoreError: it could not be sent; the parts that were stay for the next attempt.
        """
        if self.size_of(name) == size:
            return False
        file.seek(0)
        if size > self.part_bytes:
            self._send_parts(name, file, size=size, sha256=sha256, check=check)
        else:
            content = file.read(size)
            if len(content) != size or hashlib.sha256(content).hexdigest() != sha256:
                raise Damaged(CHANGED.format(name=name), name=name)
            self.write(name, content)
        return True

    def _send_parts(self, name: str, file: BinaryIO, *, size: int, sha256: str, check: Check) -> None:
        length = max(self.part_bytes, math.ceil(size / MOST_PARTS / BLOCK_BYTES) * BLOCK_BYTES)
        with self._asking(name):
            upload, present = self._upload_of(name)
            digest, parts = hashlib.sha256(), []
            for number in range(1, math.ceil(size / length) + 1):
                check()
                content = file.read(min(length, size - (number - 1) * length))
                digest.update(content)
                etag = present.get(number)
                if etag != hashlib.md5(content, usedforsecurity=False).hexdigest():
                    sent = self._client.upload_part(
                        **self._at(name), UploadId=upload, PartNumber=number, Body=content, ContentMD5=_md5(content)
                    )
                    etag = sent["ETag"].strip('"')
                parts.append({"PartNumber": number, "ETag": etag})
            if digest.hexdigest() != sha256:
                self._client.abort_multipart_upload(**self._at(name), UploadId=upload)
                raise Damaged(CHANGED.format(name=name), name=name)
            self._client.complete_multipart_upload(**self._at(name), UploadId=upload, MultipartUpload={"Parts": parts})

    def _upload_of(self, name: str) -> tuple[str, dict[int, str]]:
        """The id of the upload that is under way, with the parts it has by number; else of a new one."""
        key = self._prefix + name
        uploads = self._client.list_multipart_uploads(Bucket=self.bucket, Prefix=key).get("Uploads", ())
        begun = sorted((one for one in uploads if one["Key"] == key), key=lambda one: one["Initiated"])
        if not begun:
            return str(self._client.create_multipart_upload(**self._at(name))["UploadId"]), {}
        upload = str(begun[-1]["UploadId"])
        pages = self._client.get_paginator("list_parts").paginate(**self._at(name), UploadId=upload)
        present = {one["PartNumber"]: one["ETag"].strip('"') for page in pages for one in page.get("Parts", ())}
        return upload, present

    # --- removing ----------------------------------------------------------------------------------------------------

    def remove(self, names: Iterable[str]) -> int:
        """Removes objects, also such as are not there; returns how many were named.

        Raises:
            StoreError: some are still there.
        """
        found = list(names)
        for start in range(0, len(found), DELETED_AT_ONCE):
            some = [{"Key": self._prefix + name} for name in found[start : start + DELETED_AT_ONCE]]
            with self._asking(found[start]):
                told = self._client.delete_objects(Bucket=self.bucket, Delete={"Objects": some, "Quiet": True})
            if left := told.get("Errors"):
                raise StoreRefuses(f"{self.address}/{left[0]['Key']} cannot be removed: {left[0].get('Message')}")
        return len(found)

    def drop_uploads(self, below: str) -> None:
        """Throws away the parts of uploads that were never completed."""
        with self._asking(below):
            found = self._client.list_multipart_uploads(Bucket=self.bucket, Prefix=self._prefix + below)
            for one in found.get("Uploads", ()):
                self._client.abort_multipart_upload(Bucket=self.bucket, Key=one["Key"], UploadId=one["UploadId"])

    # --- errors ------------------------------------------------------------------------------------------------------

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self._prefix + name}

    @contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        """Tells what the client raises in our words."""
        where = f"{self.address}/{name}"
        try:
            yield
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise StoreRefuses(f"The artifact store {self.address} needs credentials: {error}") from error
        except BotoCoreError as error:
            raise StoreAway(f"The artifact store does not answer ({where}): {error}") from error
        except ClientError as error:
            raise _told(error, where) from error


def _told(error: ClientError, where: str) -> StoreError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in BUSY or status == 429 or status >= 500:
        return StoreAway(f"The artifact store is too busy ({where}): {error}")
    if code in {"NoSuchUpload", "InvalidPart"}:  # somebody else completed it, or threw it away
        return StoreAway(f"The upload has to begin anew ({where}): {error}")
    if status == 404 and code != "NoSuchBucket":
        return NotThere(f"There is no {where} in the artifact store.")
    return StoreRefuses(f"The artifact store refuses ({where}): {error}")


def _md5(content: bytes) -> str:
    """What the server checks on arrival; our own hash is the sha256."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
