"""The artifact store in a bucket of an S3-compatible server: `PLACKETT_ARTIFACTS=s3://BUCKET/PREFIX`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from storages.backends.s3 import S3Storage

CONNECT_SECONDS, READ_SECONDS, TRIES = 5, 30, 3


class BucketStorage(S3Storage):  # type: ignore[misc]  # django-storages ships no types
    """As its parent, but that it fails as a folder would: whoever reads a snapshot knows OSError and nothing of S3."""

    def get_default_settings(self) -> dict[str, Any]:
        """What the settings of STORAGES leave open."""
        config = Config(
            signature_version="s3v4",
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": TRIES},
            # Checksums of the newest protocol are more than many servers of others understand; ours stand in Postgres.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        # Two snapshots of equal content have a file each, so that withdrawing one leaves the other.
        ours = {"client_config": config, "file_overwrite": False, "max_memory_size": 16 << 20}
        return {**super().get_default_settings(), **ours}

    def exists(self, name: str) -> bool:
        with _as_of_a_disk(name):
            return bool(super().exists(name))

    def size(self, name: str) -> int:
        with _as_of_a_disk(name):
            return int(super().size(name))

    def delete(self, name: str) -> None:
        with _as_of_a_disk(name):
            super().delete(name)

    def _save(self, name: str, content: Any) -> str:
        with _as_of_a_disk(name):
            return str(super()._save(name, content))

    def _open(self, name: str, mode: str = "rb") -> Any:
        with _as_of_a_disk(name):
            opened = super()._open(name, mode)
            if "w" not in mode:
                _ = opened.file  # fetched now, not at the first byte that somebody reads outside of here
            return opened


@contextmanager
def _as_of_a_disk(name: str) -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise OSError(f"{name} in the artifact store: {error}") from error
