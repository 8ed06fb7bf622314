from __future__ import annotations

from pathlib import Path

import pytest

import salver
from salver.protocol.errors import SalverError
from salver.protocol.journal_actions import JOURNAL_ACTIONS, check_actions


def test_each_action_is_one_that_something_records() -> None:
    folder = Path(salver.__file__).parent
    code = "".join(path.read_text() for path in folder.rglob("*.py") if path.name != "journal_actions.py")
    assert [name for name in JOURNAL_ACTIONS if f'"{name}"' not in code] == []


def test_what_is_no_action_is_refused_with_what_is_near() -> None:
    check_actions(JOURNAL_ACTIONS)
    with pytest.raises(SalverError, match=r"no action 'promotion'; did you mean 'promote'") as raised:
        check_actions(["register", "promotion"])
    assert raised.value.code == "INVALID_PARAMETER"
    with pytest.raises(SalverError, match=r"there are add_case, alias, .*withdraw_approval"):
        check_actions(["zzz"])
