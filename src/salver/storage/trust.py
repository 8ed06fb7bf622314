"""The directory of public keys that a home trusts. Which bytes are keys is for `salver.security.keys` to say.

    NAME.pub                 a key, as PEM
    FINGERPRINT.distrusted   a key that is never trusted again, whatever NAME.pub holds it too

A key is distrusted by first writing the second and then removing the first, so that a death between the two
leaves it distrusted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from salver.protocol.errors import SalverError
from salver.storage.snapshot import create_once, full_disk_is_reported, write_atomically

__all__ = ["TrustDirectory"]

_LONGEST_KEY_BYTES: Final = 64 * 1024
_MOST_KEYS: Final = 1000


class TrustDirectory:
    """The trusted public keys of one home. Everything is read anew at each call: it is asked only at loads."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def public_keys(self) -> dict[str, bytes]:
        """The files of keys by name, those that cannot be read as empty ones; none where there is no directory.

        Raises REFUSED_BY_POLICY for more of them than anybody has.
        """
        paths = sorted(self._path.glob("*.pub"))
        if len(paths) > _MOST_KEYS:
            raise SalverError(
                "REFUSED_BY_POLICY",
                f"the home trusts {len(paths)} keys; at most {_MOST_KEYS} are read",
                "remove keys from the directory trust of the home",
            )
        return {path.name: _read(path) for path in paths}

    def distrusted(self) -> frozenset[str]:
        """The fingerprints of keys that are never trusted."""
        return frozenset(path.stem for path in self._path.glob("*.distrusted"))

    def add(self, key_id: str, pem: bytes, name: str = "") -> bool:
        """Trust a key from now on, durably; False where a file of that name is there already."""
        with full_disk_is_reported():
            self._path.mkdir(mode=0o700, exist_ok=True)
        return create_once(self._path / f"{name or key_id}.pub", pem)

    def distrust(self, key_id: str, pem: bytes, names: tuple[str, ...]) -> None:
        """Trust a key no more, durably; `names` are the files that hold it."""
        write_atomically(self._path / f"{key_id}.distrusted", pem)
        for name in names:
            (self._path / name).unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    """The beginning of a file, of which a key never has more; nothing of what is no readable file."""
    try:
        with path.open("rb") as file:
            return file.read(_LONGEST_KEY_BYTES) if path.is_file() else b""
    except OSError:
        return b""
