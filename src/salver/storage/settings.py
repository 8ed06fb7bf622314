"""Where a home keeps what it keeps: `storage.toml` in the home.

    database = "postgresql://user@host/salver"     # empty: salver.db in the home
    artifacts = "s3://bucket/prefix"               # empty: blobs/ in the home
    encryption_key = "file:/etc/salver/key"        # or env:SALVER_NAME, kms:module:Class; empty: none

    [s3]
    endpoint = "https://minio.example.com:9000"    # empty: Amazon's
    region = "eu-central-1"

`SALVER_STORAGE_DATABASE`, `SALVER_STORAGE_ARTIFACTS`, `SALVER_STORAGE_ENCRYPTION_KEY` and
`SALVER_STORAGE_PREVIOUS_ENCRYPTION_KEY` override the file. A file that is absent means all defaults.
Values may hold credentials (a database URL does), so no message repeats one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from salver.protocol.errors import SalverError

__all__ = ["FILE_NAME", "S3Settings", "StorageSettings", "check_key_source", "read_storage_settings"]

FILE_NAME: Final = "storage.toml"
_PREFIX: Final = "SALVER_STORAGE_"
_OVERRIDDEN: Final = ("database", "artifacts", "encryption_key", "previous_encryption_key")
_ARTIFACTS: Final = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[A-Za-z0-9._=-]+)*/?")
_KEY: Final = re.compile(r"(?:env:SALVER_[A-Z0-9_]+|file:.+|kms:[A-Za-z_][\w.]*:[A-Za-z_]\w*)")
_ENDPOINT: Final = re.compile(r"https?://[^/@\s]+/?")
_SEE: Final = "see docs/artifacts.md"


class S3Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach an S3-compatible service. Credentials come from the environment (AWS_ACCESS_KEY_ID, ...)."""

    endpoint: str = ""
    """URL of the service; empty: Amazon's in the region."""
    region: str = "us-east-1"
    allow_http: bool = False
    """Allow an endpoint without TLS."""
    timeout_s: float = 30.0
    """How long one request may take; a large file is many requests."""
    retries: int = 4
    """How often a request that failed for a passing reason is sent again."""


class StorageSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `storage.toml` and the environment say."""

    database: str = ""
    """URL of the database; empty: `salver.db` in the home."""
    artifacts: str = ""
    """`s3://bucket/prefix` of the artifact store; empty: `blobs/` in the home."""
    encryption_key: str = ""
    """Where the key-encryption key is: `env:SALVER_NAME`, `file:PATH` or `kms:module:Class`; empty: new artifacts are
    plain."""
    previous_encryption_key: str = ""
    """Where the key is under which older artifacts still are, until `salver storage rekey` has wrapped theirs anew."""
    cache_bytes: int = 64 << 30
    """How much of a remote store is kept in the home's `blobs/`; least recently used files go first."""
    s3: S3Settings = S3Settings()


def read_storage_settings(home: Path, environment: Mapping[str, str] = os.environ) -> StorageSettings:
    """The settings of the home at `home`; raises INVALID_SETTING naming the setting, never its value."""
    table: dict[str, object] = {}
    try:
        content = msgspec.toml.decode((home / FILE_NAME).read_bytes())
    except FileNotFoundError:
        pass
    except OSError as error:
        raise SalverError("INVALID_SETTING", f"cannot read {FILE_NAME} of the home: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SalverError("INVALID_SETTING", f"{FILE_NAME}: {error}", _SEE) from None
    else:
        table |= content
    for name in _OVERRIDDEN:
        value = environment.get(_PREFIX + name.upper())
        if value is not None:
            table[name] = value
    try:
        settings = msgspec.convert(table, StorageSettings)
    except msgspec.ValidationError as error:
        raise SalverError("INVALID_SETTING", f"{FILE_NAME}: {error}", _SEE) from None
    _check(settings)
    return settings


def check_key_source(name: str, source: str) -> str:
    """Raises INVALID_SETTING, naming the setting, for what is no place of a key-encryption key."""
    if not _KEY.fullmatch(source):
        raise SalverError(
            "INVALID_SETTING",
            f"{name} is no place of a key",
            f"use env:SALVER_NAME, file:PATH or kms:module:Class; {_SEE}",
        )
    return source


def _check(settings: StorageSettings) -> None:
    s3 = settings.s3
    wrong = {
        "artifacts": settings.artifacts and not _ARTIFACTS.fullmatch(settings.artifacts),
        "cache_bytes": settings.cache_bytes < 1,
        "s3.endpoint": s3.endpoint and not _ENDPOINT.fullmatch(s3.endpoint),
        "s3.timeout_s": not 0 < s3.timeout_s <= 3600,
        "s3.retries": not 0 <= s3.retries <= 20,
    }
    for name in ("encryption_key", "previous_encryption_key"):
        if getattr(settings, name):
            check_key_source(f"{FILE_NAME}: {name}", getattr(settings, name))
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise SalverError("INVALID_SETTING", f"{FILE_NAME}: {name} has no such value", _SEE)
    if s3.endpoint.startswith("http://") and not s3.allow_http:
        raise SalverError(
            "INVALID_SETTING",
            f"{FILE_NAME}: s3.endpoint has no TLS",
            "use https, or set s3.allow_http = true for a service on this machine",
        )
