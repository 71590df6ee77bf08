"""The store that the settings name."""

import importlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.core.files.storage import default_storage

if TYPE_CHECKING:
    from training.store.objects import ObjectStore


def open_store() -> "ObjectStore | None":
    """The bucket behind Django's default storage; None where that is a folder, which all machines then share."""
    if getattr(default_storage, "bucket_name", None) is None:
        return None
    client: Any = default_storage.connection.meta.client  # type: ignore[attr-defined]
    return _opened(client, default_storage.bucket_name, default_storage.location)  # type: ignore[attr-defined]


@lru_cache(maxsize=8)
def _opened(client: Any, bucket: str, location: str) -> "ObjectStore":
    # Only here, and only by name: botocore takes tens of megabytes that a server with a folder need not spend.
    objects = importlib.import_module("training.store.objects")
    store: ObjectStore = objects.ObjectStore(client, bucket=bucket, prefix=location)
    return store
