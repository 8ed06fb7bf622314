"""The stores of a home, as its `storage.toml` says: everybody who needs one comes here."""

from __future__ import annotations

from salver.storage.blob_keys import HomeKeys
from salver.storage.blob_store import Blobs
from salver.storage.blobs import BlobStore
from salver.storage.home import Home
from salver.storage.settings import read_storage_settings

__all__ = ["open_blobs"]


def open_blobs(home: Home) -> Blobs:
    """The artifact store of a home; asks nobody and reads no key yet.

    Raises INVALID_SETTING for a `storage.toml` that is wrong, UNSUPPORTED where an extra is missing.
    """
    settings = read_storage_settings(home.path)
    keys = HomeKeys(settings.encryption_key, settings.previous_encryption_key)
    local = BlobStore(home.blobs_path, keys)
    if not settings.artifacts:
        return local
    from salver.storage.remote_blobs import RemoteBlobs  # noqa: PLC0415 - only where artifacts are elsewhere
    from salver.storage.s3_bucket import S3Bucket  # noqa: PLC0415

    return RemoteBlobs(S3Bucket(settings.artifacts, settings.s3), local, keys, settings.cache_bytes)
