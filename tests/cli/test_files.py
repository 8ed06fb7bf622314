from __future__ import annotations

import io
import sys

import pytest

from salver.cli.files import read_file, read_given
from salver.protocol.errors import SalverError


def test_a_file_is_its_bytes_and_is_called_as_it_was_typed(tmp_path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"1\r\n\xff")
    assert read_file(tmp_path / "rows.csv") == b"1\r\n\xff"
    assert read_given(str(tmp_path / "rows.csv")) == (b"1\r\n\xff", repr(str(tmp_path / "rows.csv")))


def test_a_dash_is_standard_input(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"typed")))
    assert read_given("-") == (b"typed", "standard input")


def test_what_cannot_be_read_is_named_with_its_reason(tmp_path) -> None:
    for path, why in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(SalverError) as raised:
            read_file(path)
        assert (raised.value.code, raised.value.message) == ("INVALID_PARAMETER", f"cannot read {str(path)!r}: {why}")


def test_a_file_above_the_limit_is_not_read(tmp_path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate((1 << 30) + 1)  # a hole: it takes no room
    with pytest.raises(SalverError, match="more than 1073741824 bytes") as raised:
        read_file(tmp_path / "huge")
    assert raised.value.code == "BODY_TOO_LARGE"


def test_every_command_says_the_same_of_a_file_that_is_not_there(salver, made, tmp_path) -> None:
    none = tmp_path / "none"
    for arguments in (
        ("audit", "verify", "--heads", none),
        ("audit", "verify", "--public-key", none),
        ("keys", "trust", none),
        ("verify", tmp_path, "--public-key", none),
        ("backup", tmp_path / "all.tar", "--passphrase-file", none),
    ):
        done = salver("--json", *arguments)
        assert (done.code, done.error["code"]) == (1, "INVALID_PARAMETER"), arguments
        assert done.error["message"] == f"cannot read {str(none)!r}: No such file or directory"
