from __future__ import annotations

from pathlib import Path

import pytest

from salver.protocol.usage import Asking
from salver.storage import usage_spool
from salver.storage.usage_spool import UsageSpool

ONE = Asking("digits", "1.0.0", "digits", "ci", 3, 5.0)
TWO = Asking("digits", "1.0.0", "digits", "app", 1, 6.0)


def test_what_is_left_is_given_once(tmp_path: Path) -> None:
    spool, kept = UsageSpool(tmp_path / "usage"), []
    assert spool.put([ONE, TWO])
    assert UsageSpool(tmp_path / "usage").put([TWO])
    assert spool.drain(kept.extend) == 2
    assert sorted(kept, key=lambda asking: asking.client) == [TWO, TWO, ONE]
    assert spool.drain(kept.extend) == 0


def test_nothing_waits_in_a_home_in_which_nothing_was_asked(tmp_path: Path) -> None:
    assert UsageSpool(tmp_path / "usage").drain(lambda _: pytest.fail("nothing is there")) == 0


def test_counts_stay_when_they_cannot_be_kept(tmp_path: Path) -> None:
    spool, kept = UsageSpool(tmp_path / "usage"), []
    spool.put([ONE])
    with pytest.raises(OSError, match="gone"):
        spool.drain(lambda _: (_ for _ in ()).throw(OSError("gone")))
    spool.drain(kept.extend)
    assert kept == [ONE]


def test_a_damaged_file_does_not_hold_up_the_others(tmp_path: Path) -> None:
    spool, kept = UsageSpool(tmp_path / "usage"), []
    spool.put([ONE])
    (tmp_path / "usage" / "0-0.json").write_bytes(b"{")
    spool.drain(kept.extend)
    assert kept == [ONE]
    assert list((tmp_path / "usage").iterdir()) == []


def test_counts_are_dropped_where_nobody_fetches_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_spool, "_MOST_FILES", 2)
    spool = UsageSpool(tmp_path / "usage")
    assert [spool.put([ONE]) for _ in range(3)] == [True, True, False]
