from __future__ import annotations

from pathlib import Path

from salver.processes.places import Places


def test_what_one_process_writes_the_others_see(tmp_path: Path) -> None:
    one, other = Places(tmp_path / "places", 3), Places(tmp_path / "places", 3)
    assert [other.is_vacant(slot) for slot in range(3)] == [True] * 3
    one.take(1)
    assert [other.is_vacant(slot) for slot in range(3)] == [True, False, True]
    assert (other.others_serve(1), other.others_serve(0)) == (False, True)
    other.leave(1)
    assert one.is_vacant(1)
    assert not one.closing
    other.close_all()
    assert one.closing


def test_opening_it_once_more_changes_nothing(tmp_path: Path) -> None:
    Places(tmp_path / "places", 2).take(0)
    assert repr(Places(tmp_path / "places", 2)) == "<Places +->"
