"""The keys of the home."""

from __future__ import annotations

from typing import Final

import msgspec

from salver.control.action import Action, Nothing
from salver.registry.key_changes import Rotated
from salver.registry.keyring import KeyDescription
from salver.security.access import Operation

__all__ = ["ACTIONS", "DISTRUST_KEY", "KEYS", "ROTATE_KEY", "TRUST_KEY", "KeyFile", "KeyNamed"]


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A public key, and what to call it."""

    pem: str
    name: str


class KeyNamed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key by its fingerprint, or the beginning of it."""

    key_id: str


KEYS: Final = Action(
    "GET",
    "/v1/keys",
    Operation.READ,
    "The keys of the home: public halves, and what each is for",
    Nothing,
    tuple[KeyDescription, ...],
    lambda admin, _: admin.records.keyring.describe(),
)
ROTATE_KEY: Final = Action(
    "POST",
    "/v1/keys/rotation",
    Operation.KEEP_KEYS,
    "Sign with a new key from now on; what the old one signed stays good",
    Nothing,
    Rotated,
    lambda admin, _: admin.records.key_changes.rotate(admin.principal),
)
TRUST_KEY: Final = Action(
    "POST",
    "/v1/keys",
    Operation.KEEP_KEYS,
    "Take versions that come with a signature of this key",
    KeyFile,
    KeyDescription,
    lambda admin, asked: admin.records.key_changes.trust(admin.principal, asked.pem, asked.name),
)
DISTRUST_KEY: Final = Action(
    "DELETE",
    "/v1/keys/{key_id}",
    Operation.KEEP_KEYS,
    "Load nothing any more that this key has signed",
    KeyNamed,
    KeyDescription,
    lambda admin, asked: admin.records.key_changes.distrust(admin.principal, asked.key_id),
)
ACTIONS: Final = (KEYS, ROTATE_KEY, TRUST_KEY, DISTRUST_KEY)
