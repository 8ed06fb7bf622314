"""Bytes and records that outlive a process.

One data directory, the `Home`, holds everything: content-addressed blobs, the published tables,
secrets, and one SQLite database with the registry and the audit journal. What these modules
acknowledge is on disk; what they hand out was checked against its digest.

The names below are free of SQLAlchemy, because the server process imports them. The database
lives in `salver.storage.database` and `salver.storage.journal`, for the controller.
"""

from salver.storage.blobs import Blob, BlobStore
from salver.storage.home import Holder, Home, Serving
from salver.storage.publication import publish, read_tables
from salver.storage.snapshot import create_once, read_json, write_atomically, write_json

__all__ = [
    "Blob",
    "BlobStore",
    "Holder",
    "Home",
    "Serving",
    "create_once",
    "publish",
    "read_json",
    "read_tables",
    "write_atomically",
    "write_json",
]
