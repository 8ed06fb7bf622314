from __future__ import annotations

import stat
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from salver.protocol.errors import SalverError
from salver.security.keys import AuditKey
from salver.storage.tree_heads import HeadFile, TreeHead, parse_heads, signature_flaw

KEY = AuditKey(Ed25519PrivateKey.generate())
KNOWN = {KEY.key_id: KEY.public}


def signed(size: int) -> TreeHead:
    head = TreeHead(size, "ab" * 32, 1700000000.5, KEY.key_id, "")
    return msgspec.structs.replace(head, signature=KEY.sign(head.message).hex())


def line(head: TreeHead) -> bytes:
    return msgspec.json.encode(head) + b"\n"


def test_a_signature_is_over_every_field_and_is_written_in_one_way() -> None:
    head = signed(7)
    assert signature_flaw(head, KNOWN) == ""
    assert head.message == (
        b'salver tree head v1\n{"at_s":1700000000.5,"key_id":"%b","root":"%b","size":7}'
        % (KEY.key_id.encode(), b"ab" * 32)
    )
    for changed in ({"size": 8}, {"root": "ac" * 32}, {"at_s": 1700000000.75}, {"signature": head.signature.upper()}):
        assert signature_flaw(msgspec.structs.replace(head, **changed), KNOWN) == "has a signature that does not fit"
    for damaged in ({"signature": "x"}, {"signature": None}, {"root": b"ab"}, {"at_s": float("nan")}):
        assert signature_flaw(msgspec.structs.replace(head, **damaged), KNOWN) == "has a signature that does not fit"
    assert (
        signature_flaw(head, {})
        == f"is signed with key {KEY.key_id[:16]}, which is not known here and which no known key is linked to"
    )


def test_the_file_only_grows_and_is_private(tmp_path: Path) -> None:
    file = HeadFile(tmp_path / "audit" / "heads.jsonl")
    assert (file.read(), file.last_size()) == ((), 0)
    file.add([signed(1), signed(2)])
    file.add([signed(5)])
    assert [head.size for head in file.read()] == [1, 2, 5]
    assert file.last_size() == 5
    path = tmp_path / "audit" / "heads.jsonl"
    assert path.read_bytes() == line(signed(1)) + line(signed(2)) + line(signed(5))
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)


@pytest.mark.parametrize("kept", [0, 1, 30, 299])
def test_a_line_that_was_cut_while_it_was_written_is_left_out_and_written_again(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "heads.jsonl"
    path.write_bytes(line(signed(1)) + line(signed(2))[:kept])
    file = HeadFile(path)
    assert [head.size for head in file.read()] == [1]
    assert file.last_size() == 1
    file.add([signed(2)])
    assert path.read_bytes() == line(signed(1)) + line(signed(2))


def test_a_file_that_begins_with_a_cut_line_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "heads.jsonl"
    path.write_bytes(line(signed(1))[:20])
    assert HeadFile(path).last_size() == 0
    HeadFile(path).add([signed(1)])
    assert path.read_bytes() == line(signed(1))


@pytest.mark.parametrize("damage", [b"{}\n", b"\xff\n", b'{"size":1}\n', b"x" * 5000 + b"\n"])
def test_any_other_line_that_is_no_head_is_named(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "heads.jsonl"
    path.write_bytes(line(signed(1)) + damage + line(signed(2)))
    with pytest.raises(SalverError, match=r"line 2 of heads\.jsonl is no tree head") as refused:
        HeadFile(path).read()
    assert refused.value.code == "CORRUPT_ARTIFACT"


def test_one_head_alone_needs_no_end_of_line_and_nonsense_is_refused() -> None:
    assert parse_heads(line(signed(3)).strip(), "kept") == (signed(3),)
    assert parse_heads(b"\n\n", "kept") == ()
    with pytest.raises(SalverError, match="line 1 of kept"):
        parse_heads(b"hello", "kept")
