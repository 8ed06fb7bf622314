"""What comes out of an archive: plain files below one directory, or nothing at all."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from salver.protocol.errors import SalverError
from salver.storage.archives import ArchiveLimits, extract

FEW = ArchiveLimits(members=5, total_bytes=1 << 20, ratio=100.0, ratio_from_bytes=1 << 16)
CANARY = "canary"


def zipped(path: Path, *members: tuple[Any, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as made:
        for name, content in members:
            made.writestr(name, content)
    return path


def tarred(path: Path, *members: tuple[tarfile.TarInfo | str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as made:  # type: ignore[call-overload]
        for member, content in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            if info.isreg():
                info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return path


def info(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


def entry(name: str, mode: int) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.create_system, made.external_attr = 3, mode << 16
    return made


def refused(archive: Path, limits: ArchiveLimits = FEW) -> str:
    into = archive.parent / "into"
    before = {each for each in archive.parent.rglob("*") if each != archive}
    with pytest.raises(SalverError) as raised:
        extract(archive, into, limits)
    assert raised.value.code == "INVALID_ARTIFACT"
    assert str(archive.parent) not in str(raised.value)
    assert not into.exists()
    assert {each for each in archive.parent.rglob("*") if each != archive} == before, "something was left, or got out"
    return raised.value.message


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_files_and_directories_come_out_as_they_went_in(tmp_path, kind) -> None:
    content = {"a.txt": b"first", "deep/er/b.bin": bytes(range(256)) * 500, "empty": b"", "grüße/ü.txt": b"u"}
    if kind == "zip":
        path = zipped(tmp_path / "x", ("void/", b""), *content.items())
    else:
        path = tarred(
            tmp_path / "x", (info("void", tarfile.DIRTYPE), b""), *content.items(), mode="w:gz" if "gz" in kind else "w"
        )
    assert extract(path, tmp_path / "into") == list(content)
    assert {name: (tmp_path / "into" / name).read_bytes() for name in content} == content
    assert (tmp_path / "into" / "void").is_dir()
    assert sum(each.is_file() for each in (tmp_path / "into").rglob("*")) == len(content)


def test_permissions_do_not_come_out(tmp_path) -> None:
    archive = tarfile.TarInfo("tool")
    archive.mode, archive.uid = 0o4777, 1234
    extract(tarred(tmp_path / "x", (archive, b"#!")), tmp_path / "into")
    assert stat.S_IMODE((tmp_path / "into" / "tool").stat().st_mode) == 0o600
    extract(zipped(tmp_path / "y", (entry("tool", stat.S_IFREG | 0o4777), b"#!")), tmp_path / "other")
    assert stat.S_IMODE((tmp_path / "other" / "tool").stat().st_mode) == 0o600


BAD_NAMES = [
    f"../{CANARY}",
    f"a/../../{CANARY}",
    "a/..",
    "..",
    f"/dev/null/{CANARY}",
    f"//dev/null/{CANARY}",
    f"..\\{CANARY}",
    f"a\\..\\..\\{CANARY}",
    f"C:\\{CANARY}",
    f"c:{CANARY}",
    "./a",
    "a//b",
    "a/./b",
    "a\nb",
    "a\x7fb",
    "a" * 256,
    "/".join("abcdefghijklmnopqrstuvwxyzabcdefghij"),
    "x/" * 600 + "y",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_paths_that_lead_elsewhere_are_refused(tmp_path, name) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "z").mkdir()
    assert "path" in refused(zipped(tmp_path / "z" / "x", ("first", b"1"), (name, b"2")))
    # tar drops nothing but what its writer drops
    assert "path" in refused(tarred(tmp_path / "t" / "x", ("first", b"1"), (name, b"2")))


def test_a_name_with_a_nul_is_refused_and_not_cut(tmp_path) -> None:
    path = zipped(tmp_path / "x", ("good.txtXevil", b"1"))
    path.write_bytes(path.read_bytes().replace(b"good.txtXevil", b"good.txt\0evil"))
    assert "control character" in refused(path)


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "first"),
        (tarfile.LNKTYPE, "first"),
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
        (tarfile.GNUTYPE_SPARSE, ""),
        (b"V", ""),
    ],
)
def test_what_is_no_plain_file_in_a_tar_is_refused(tmp_path, kind, target) -> None:
    assert "neither" in refused(tarred(tmp_path / "x", ("first", b"1"), (info("second", kind, target), b"")))


def test_a_file_through_a_link_does_not_get_out(tmp_path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = info("way", tarfile.SYMTYPE, str(outside))
    refused(tarred(tmp_path / "x", (link, b""), (f"way/{CANARY}", b"1")))
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_what_is_no_plain_file_in_a_zip_is_refused(tmp_path, mode) -> None:
    assert "neither" in refused(zipped(tmp_path / "x", (entry("link", mode), b"/etc/passwd")))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a", "a"),
        ("a.txt", "A.TXT"),
        ("d/a", "D/b"),
        ("d", "d/a"),
        ("d/a", "d"),
        ("straße", "STRASSE"),
        ("é", "e\u0301"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_are_one_name_somewhere_are_refused(tmp_path, first, second) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "z").mkdir()
    refused(zipped(tmp_path / "z" / "x", (first, b"1"), (second, b"2")))
    refused(tarred(tmp_path / "t" / "x", (first, b"1"), (second, b"2")))


def test_names_in_odd_encodings_are_refused(tmp_path) -> None:
    path = zipped(tmp_path / "x", ("aaaaa", b"1"))
    path.write_bytes(path.read_bytes().replace(b"aaaaa", b"\xff\xfe\xe4ab"))
    assert "UTF-8" in refused(path)
    latin = tmp_path / "latin"
    latin.mkdir()
    with tarfile.open(latin / "x", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as made:
        made.addfile(tarfile.TarInfo("gr\xfc\xdfe"), io.BytesIO())
    assert "encoding" in refused(latin / "x")


def test_more_members_than_may_be_are_refused(tmp_path) -> None:
    members = [(f"f{index}", b"") for index in range(6)]
    assert "more than 5" in refused(zipped(tmp_path / "x", *members))
    (tmp_path / "x").unlink()
    assert "more than 5" in refused(tarred(tmp_path / "x", *members))


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_bombs_are_refused(tmp_path, kind) -> None:
    zeros = bytes(900_000)
    path = zipped(tmp_path / "x", ("z", zeros)) if kind == "zip" else tarred(tmp_path / "x", ("z", zeros), mode="w:gz")
    assert path.stat().st_size < 5_000
    assert "100 times" in refused(path)


def test_more_bytes_than_may_be_are_refused(tmp_path) -> None:
    half = os.urandom(600_000)
    assert "more than 1048576 bytes" in refused(zipped(tmp_path / "x", ("a", half), ("b", half)))
    (tmp_path / "x").unlink()
    assert "more than 1048576 bytes" in refused(tarred(tmp_path / "x", ("a", half), ("b", half)))


def test_a_size_that_is_not_true_is_found_while_bytes_stream(tmp_path) -> None:
    """The directory of a zip says 10 bytes; a megabyte comes."""
    path = zipped(tmp_path / "x", ("z", bytes(1_000_000)))
    content = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        begin = content.index(signature) + at
        content[begin : begin + 4] = struct.pack("<I", 10)
    path.write_bytes(content)
    assert "cannot be read" in refused(path)


def test_members_that_share_their_bytes_are_refused(tmp_path) -> None:
    """The overlapping kind of bomb: every entry of the directory points to the same content."""
    path = zipped(tmp_path / "x", ("a", bytes(60_000)), ("b", b"1"))
    with zipfile.ZipFile(path) as opened:
        where = [each.header_offset for each in opened.infolist()]
    content = bytearray(path.read_bytes())
    second = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 4)
    content[second + 42 : second + 46] = struct.pack("<I", where[0])
    path.write_bytes(content)
    assert "overlaps" in refused(path)


def test_a_header_that_claims_a_gigabyte_is_not_read(tmp_path) -> None:
    block = bytearray(tarfile.TarInfo("pax").tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = b"10000000000\0"
    block[156:157] = tarfile.XHDTYPE
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    path = tmp_path / "x"
    with gzip.open(path, "wb") as made:
        made.write(bytes(block) + bytes(1 << 20))
    assert "claims 1073741824 bytes" in refused(path)


def test_encrypted_members_and_other_compressions_are_refused(tmp_path) -> None:
    assert "deflate" in refused(zipped(tmp_path / "x", ("a", b"1" * 100), method=zipfile.ZIP_LZMA))
    path = zipped(tmp_path / "x", ("a", b"1"))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert "encrypted" in refused(path)


def test_archives_inside_stay_files(tmp_path) -> None:
    inner = zipped(tmp_path / "inner", (f"../{CANARY}", b"1")).read_bytes()
    extract(zipped(tmp_path / "x", ("inner.zip", inner)), tmp_path / "into")
    assert (tmp_path / "into" / "inner.zip").read_bytes() == inner
    assert not (tmp_path / CANARY).exists()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_damage_at_any_place_gives_an_error_or_the_same_files(tmp_path, kind) -> None:
    content = {"a": os.urandom(700), "b/c": b"text" * 300}
    if kind == "zip":
        path = zipped(tmp_path / "x", *content.items())
    else:
        path = tarred(tmp_path / "x", *content.items(), mode="w:gz" if "gz" in kind else "w")
    whole = path.read_bytes()
    # A tar has no checksums of contents, and ends with blocks of zeros.
    for end in range(0, len(whole), 97):
        (tmp_path / "cut").write_bytes(whole[:end])
        try:
            names = extract(tmp_path / "cut", tmp_path / "into")
        except SalverError as error:
            assert error.code == "INVALID_ARTIFACT"
            assert not (tmp_path / "into").exists()
            continue
        assert kind == "tar"
        assert all((tmp_path / "into" / name).read_bytes() == content[name] for name in names)
        for each in sorted((tmp_path / "into").rglob("*"), reverse=True):
            each.rmdir() if each.is_dir() else each.unlink()
        (tmp_path / "into").rmdir()


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path) -> None:
    path = tarred(tmp_path / "x", ("a", b"1"), ("b", b"2"))
    content = bytearray(path.read_bytes())
    content[1024 + 150] ^= 0xFF
    path.write_bytes(content)
    assert "damaged" in refused(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x1f\x8b\x08", b"text", zlib.compress(b"x"), bytes(1024)])
def test_what_is_no_archive_is_refused(tmp_path, content) -> None:
    (tmp_path / "x").write_bytes(content)
    refused(tmp_path / "x")


def test_nothing_is_put_into_a_directory_that_is_there(tmp_path) -> None:
    path = zipped(tmp_path / "x", ("a", b"1"))
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "mine").write_text("kept")
    with pytest.raises(FileExistsError):
        extract(path, tmp_path / "into")
    assert (tmp_path / "into" / "mine").read_text() == "kept"


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    path = zipped(tmp_path / "x", ("a", b"1" * 100_000))
    monkeypatch.setattr("salver.storage.archives._write", full)
    with pytest.raises(SalverError) as raised:
        extract(path, tmp_path / "into")
    assert raised.value.code == "STORAGE_FULL"
    assert not (tmp_path / "into").exists()
