"""What people and pipelines say of a version: where it comes from, what it is for, how good it is."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from salver.protocol.errors import SalverError

__all__ = ["DataReference", "Description", "merged"]

_MOST_BYTES: Final = 1 << 20
"""Of a whole description as JSON."""

Setting = str | int | float | bool | None


class DataReference(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A set of data: what it is called, where it is, and the digest that says which one exactly."""

    name: str = ""
    uri: str = ""
    digest: str = ""
    """SHA-256 in hex of its bytes, as `sha256sum` prints it for one file."""
    version: str = ""
    rows: int | None = None


class Description(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The description of a version; all of it may be left out, and changed later.

    What is a fact of the bytes (format, signature, digest, size) is in the manifest, when and by whom it was
    registered in the catalog; neither is repeated here.
    """

    description: str = ""
    task: str = ""
    """What it does, such as classification or text-embedding."""
    owner: str = ""
    publisher: str = ""
    """The organisation that stands for it."""
    licence: str = ""
    """An SPDX identifier, such as Apache-2.0."""
    intended_use: str = ""
    limitations: str = ""
    base_model: str = ""
    """NAME@VERSION of this registry, or the name of a model elsewhere."""
    change_note: str = ""
    """What is new against the version before."""
    training_data: DataReference | None = None
    evaluation_data: DataReference | None = None
    run_id: str = ""
    """The training run, as the tracking system calls it."""
    trained_at: str = ""
    """ISO 8601."""
    code_repository: str = ""
    code_commit: str = ""
    code_dirty: bool | None = None
    """Whether the files of that commit had been changed when it was registered; None where nobody looked."""
    environment: str = ""
    """The lock file of the environment it was trained in, as text."""
    environment_digest: str = ""
    """SHA-256 of a lock file that is too large to stand in `environment`; see `lock_digest`."""
    image_digest: str = ""
    """Of the container image it was trained in: sha256:..."""
    hyperparameters: dict[str, Setting] = {}
    metrics: dict[str, float] = {}
    """Numbers of its quality, by name."""
    extra: dict[str, str] = {}
    """Whatever else is worth knowing."""

    @property
    def lock_digest(self) -> str:
        """SHA-256 of the lock file, as `sha256sum` prints it; empty where none is known."""
        if self.environment:
            return hashlib.sha256(self.environment.encode()).hexdigest()
        return self.environment_digest.removeprefix("sha256:").lower()


def merged(before: Description, changes: dict[str, Any]) -> Description:
    """`before` with `changes` as a JSON merge patch (RFC 7386): None removes, mappings are merged.

    Raises INVALID_PARAMETER naming the field that makes no sense, or a description that has grown too large.
    """
    try:
        after = msgspec.convert(_patched(msgspec.to_builtins(before), changes), Description)
        size_bytes = len(msgspec.json.encode(after))
    except (msgspec.ValidationError, msgspec.EncodeError, UnicodeEncodeError, TypeError) as error:
        raise SalverError(
            "INVALID_PARAMETER",
            f"the description is wrong: {error}",
            f"its fields are {', '.join(Description.__struct_fields__)}",
        ) from None
    if size_bytes > _MOST_BYTES:
        raise SalverError(
            "INVALID_PARAMETER",
            f"the description has {size_bytes} bytes",
            f"use at most {_MOST_BYTES}; refer to the rest",
        )
    _require_finite(after)
    return after


def _patched(value: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for key, change in patch.items():
        if change is None:
            result.pop(key, None)
        else:
            result[key] = _patched(result.get(key), change)
    return result


def _require_finite(description: Description) -> None:
    for name, number in [*description.metrics.items(), *description.hyperparameters.items()]:
        if isinstance(number, float) and number - number != 0:
            raise SalverError("INVALID_PARAMETER", f"{name} is {number}", "give finite numbers, or leave it out")
