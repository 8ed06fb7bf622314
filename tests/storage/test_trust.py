from __future__ import annotations

import stat
from pathlib import Path

import pytest

from salver.protocol.errors import SalverError
from salver.storage.trust import TrustDirectory


def test_a_home_without_the_directory_trusts_nobody(tmp_path: Path) -> None:
    directory = TrustDirectory(tmp_path / "trust")
    assert (directory.public_keys(), directory.distrusted()) == ({}, frozenset())


def test_what_is_added_is_there_once_and_private(tmp_path: Path) -> None:
    directory = TrustDirectory(tmp_path / "trust")
    assert directory.add("ab" * 32, b"pem")
    assert not directory.add("ab" * 32, b"another")
    assert directory.public_keys() == {f"{'ab' * 32}.pub": b"pem"}
    assert stat.S_IMODE((tmp_path / "trust").stat().st_mode) == 0o700
    assert sorted(path.name for path in (tmp_path / "trust").iterdir()) == [f"{'ab' * 32}.pub"]


def test_a_death_between_the_two_steps_of_distrusting_leaves_the_key_distrusted(tmp_path: Path, monkeypatch) -> None:
    directory = TrustDirectory(tmp_path / "trust")
    directory.add("ab" * 32, b"pem", "team")

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", die)
    with pytest.raises(KeyboardInterrupt):
        directory.distrust("ab" * 32, b"pem", ("team.pub",))
    monkeypatch.undo()
    assert directory.distrusted() == {"ab" * 32}
    directory.distrust("ab" * 32, b"pem", ("team.pub",))
    assert directory.public_keys() == {}


def test_more_keys_than_anybody_has_are_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("salver.storage.trust._MOST_KEYS", 2)
    directory = TrustDirectory(tmp_path / "trust")
    for number in range(3):
        directory.add(f"{number}", b"pem")
    with pytest.raises(SalverError, match="trusts 3 keys; at most 2"):
        directory.public_keys()


def test_of_a_large_file_only_the_beginning_is_read(tmp_path: Path) -> None:
    directory = TrustDirectory(tmp_path / "trust")
    directory.add("large", b"x" * 200_000)
    assert len(directory.public_keys()["large.pub"]) == 65536
