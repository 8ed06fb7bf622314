from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from salver.protocol.errors import SalverError
from salver.protocol.profile import FeatureProfile, InputProfile, Profile
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import FileEntry, VersionManifest
from salver.registry.catalog import Catalog, find_version, highest_version
from salver.registry.files import artifact_digest
from salver.registry.keyring import Keyring
from salver.security.model_signing import Publisher, open_bundle, sign_manifest
from salver.storage.database import Database, open_database
from salver.storage.home import Home
from salver.storage.journal import ChainCheck, Journal

PROFILE = Profile((InputProfile("x", 100, (FeatureProfile(0.0, 1.0, 0.5, 0.1, 0),)),))
OTHER_PROFILE = Profile((InputProfile("x", 200, (FeatureProfile(0.0, 2.0, 0.5, 0.1, 0),)),))
REGISTER = """
import sys
from salver.clock import SYSTEM_CLOCK
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import FileEntry
from salver.registry.catalog import Catalog
from salver.registry.draft import VersionDraft
from salver.registry.keyring import Keyring
from salver.security import local_principal
from salver.storage.database import open_database
from salver.storage.home import Home
from salver.storage.journal import Journal

home = Home.open(sys.argv[1])
database = open_database(home)
catalog = Catalog(database, Journal(database, SYSTEM_CLOCK), SYSTEM_CLOCK, Keyring(home))
signature = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 2)),))
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    files = (FileEntry(f"{sys.argv[2]}.{number}", "a" * 64, 1),)
    manifest, created, _ = catalog.add_version(local_principal(), VersionDraft("digits", "onnx", files, signature))
    assert created
    print(manifest.reference, manifest.ordinal, flush=True)
database.close()
"""


def test_the_first_version_is_1_0_0_and_the_next_ones_are_patches(catalog: Catalog, admin, draft) -> None:
    for ordinal, content in enumerate("abc", 1):
        manifest, created, _ = catalog.add_version(admin, draft(content))
        assert created
        assert (manifest.version, manifest.ordinal) == (f"1.0.{ordinal - 1}", ordinal)


@pytest.mark.parametrize(
    ("known", "following"),
    [
        (["2.3.4"], "2.3.5"),
        (["1.10.0", "1.9.9"], "1.10.1"),
        (["1.0.0", "2.0.0-rc.1"], "2.0.0"),
        (["0.1.0-alpha"], "0.1.0"),
        (["1.0.0+build.7"], "1.0.1"),
    ],
)
def test_a_version_without_a_number_follows_the_highest_one(
    catalog: Catalog, admin, draft, known: list[str], following: str
) -> None:
    for number, content in zip(known, "abc", strict=False):
        catalog.add_version(admin, draft(content, version=number))
    assert catalog.add_version(admin, draft("f"))[0].version == following


def test_a_manifest_holds_what_the_draft_held_and_the_digest_of_its_files(catalog: Catalog, admin, draft) -> None:
    files = (FileEntry("b", "b" * 64, 2), FileEntry("a", "a" * 64, 1))
    asked = draft(files=files, version="3.0.0", kind="embed", profile=PROFILE, metadata={"team": "ü"})
    manifest, *_ = catalog.add_version(admin, asked)
    assert manifest.digest == artifact_digest(files)
    assert [file.path for file in manifest.files] == ["a", "b"]
    for field in ("model", "version", "format", "signature", "kind", "profile", "metadata"):
        assert getattr(manifest, field) == getattr(asked, field)
    assert catalog.versions("digits") == (manifest,)


def test_the_same_under_the_same_number_changes_nothing(catalog: Catalog, journal: Journal, admin, draft) -> None:
    first, *_ = catalog.add_version(admin, draft(version="1.0.0", profile=PROFILE, metadata={"a": "b"}))
    for repeated in (
        draft(version="1.0.0", profile=PROFILE, metadata={"a": "b"}),
        draft(version="1.0.0"),  # says nothing about the profile
        draft(version="1.0.0", metadata={"c": "d"}),
        draft(),  # a repetition of the newest needs no number
    ):
        assert catalog.add_version(admin, repeated)[:2] == (first, False)
    assert len(journal.records()) == 1


def test_the_same_bytes_may_have_two_numbers_when_asked(catalog: Catalog, admin, draft) -> None:
    catalog.add_version(admin, draft("a"))
    catalog.add_version(admin, draft("b"))
    assert catalog.add_version(admin, draft("a"))[0].version == "1.0.2"
    assert catalog.add_version(admin, draft("a", version="2.0.0"))[0].ordinal == 4


OTHER_SIGNATURE = Signature((TensorSpec("x", "FP64", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 2)),))


@pytest.mark.parametrize(
    ("fields", "differing", "free"),
    [
        ({"content": "b"}, "bytes", "1.0.1"),
        ({"files": (FileEntry("renamed.onnx", "a" * 64, 10),)}, "bytes", "1.0.1"),
        ({"signature": OTHER_SIGNATURE}, "signature", "2.0.0"),
        ({"format": "sklearn"}, "format", "1.1.0"),
        ({"trusts_code": True}, "trusts_code", "1.0.1"),
        ({"profile": OTHER_PROFILE}, "profile", "1.0.1"),
    ],
)
def test_something_else_under_a_taken_number_is_refused(
    catalog: Catalog, journal: Journal, admin, draft, fields: dict, differing: str, free: str
) -> None:
    first, *_ = catalog.add_version(admin, draft(version="1.0.0", profile=PROFILE))
    with pytest.raises(SalverError, match=f"digits@1.0.0 is registered with other {differing}") as raised:
        catalog.add_version(admin, draft(**fields, version="1.0.0"))
    assert raised.value.code == "ALREADY_EXISTS"
    assert f"for example {free}" in raised.value.remedy
    assert catalog.versions("digits") == (first,)
    assert len(journal.records()) == 1


def test_the_journal_has_both_releases_that_a_number_stands_between(
    catalog: Catalog, journal: Journal, admin, draft
) -> None:
    catalog.add_version(admin, draft("a", version="1.0.0"))
    catalog.add_version(admin, draft("b", version="1.5.0", streams=True))
    catalog.add_version(admin, draft("c", version="1.2.0"))
    details = journal.records()[-1].details
    assert (details["against"], details["changes"]) == ("1.0.0", [])
    assert (details["before"], details["later_changes"]) == ("1.5.0", ["it streams"])


def highest(database: Database) -> VersionManifest:
    with database.read() as connection:
        return highest_version(connection, "digits")


def test_without_a_number_the_highest_release_is_meant(catalog: Catalog, database: Database, admin, draft) -> None:
    for number, content in zip(["1.9.0", "1.10.0", "2.0.0-rc.1", "1.2.0"], "abcd", strict=True):
        catalog.add_version(admin, draft(content, version=number))
    assert highest(database).version == "1.10.0"
    (summary,) = catalog.models()
    assert (summary.name, summary.versions, summary.newest) == ("digits", 4, "1.2.0")
    assert summary.latest == "1.10.0"


def test_of_equal_precedence_the_highest_build_is_meant(catalog: Catalog, database: Database, admin, draft) -> None:
    catalog.add_version(admin, draft("a", version="1.0.0+z"))
    catalog.add_version(admin, draft("b", version="1.0.0+a"))
    assert highest(database).version == "1.0.0+z"


def test_what_is_not_there_is_answered_with_what_is(catalog: Catalog, database: Database, admin, draft) -> None:
    with pytest.raises(SalverError, match="nothing is registered yet") as raised:
        highest(database)
    assert raised.value.code == "NOT_FOUND"
    catalog.add_version(admin, draft(version="1.0.0-rc.1"))
    catalog.add_version(admin, draft(model="iris"))
    with pytest.raises(SalverError, match=r"only pre-releases may serve: 1\.0\.0-rc\.1; name the version"):
        highest(database)
    with (
        database.read() as connection,
        pytest.raises(SalverError, match=r"has no version '9\.9\.9'; it has 1\.0\.0-rc\.1"),
    ):
        find_version(connection, "digits", "9.9.9")
    with pytest.raises(SalverError, match=r"no model 'digit'; did you mean 'digits'\? registered are digits, iris"):
        catalog.versions("digit")
    assert [model.latest for model in catalog.models()] == [None, "1.0.0"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"model": "../digits"}, "INVALID_NAME"),
        ({"model": "Digits"}, "INVALID_NAME"),
        ({"version": "1.0"}, "INVALID_VERSION"),
        ({"version": ""}, "INVALID_VERSION"),
        ({"files": ()}, "INVALID_ARTIFACT"),
        ({"files": (FileEntry("../x", "0" * 64, 1),)}, "INVALID_ARTIFACT"),
        ({"kind": "teleport"}, "INVALID_ARTIFACT"),
        ({"metadata": {"a": "\ud800"}}, "INVALID_ARTIFACT"),
        ({"metadata": {"a": 7}}, "INVALID_ARTIFACT"),
        ({"metadata": {7: "a"}}, "INVALID_ARTIFACT"),
        ({"signature": None}, "INVALID_ARTIFACT"),
    ],
)
def test_what_breaks_a_rule_is_refused_and_not_recorded(
    catalog: Catalog, journal: Journal, admin, draft, fields: dict, code: str
) -> None:
    with pytest.raises(SalverError) as raised:
        catalog.add_version(admin, draft(**fields))
    assert raised.value.code == code
    assert journal.records() == ()
    assert catalog.models() == ()


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_profile_that_json_cannot_hold_is_refused_before_it_makes_the_registry_unreadable(
    catalog: Catalog, admin, draft, value: float
) -> None:
    profile = Profile((InputProfile("x", 1, (FeatureProfile(0.0, value, 0.0, 0.0, 0),)),))
    with pytest.raises(SalverError, match="cannot be stored") as raised:
        catalog.add_version(admin, draft(profile=profile))
    assert raised.value.code == "INVALID_ARTIFACT"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"metadata": {"small": "x", "large": "x" * 66_000}}, r"have 66024 bytes, the most of them 'large'; .* 65536"),
        ({"metadata": {f"name{number}": "" for number in range(8_000)}}, "the metadata of 'digits' have"),
        ({"preprocess": "x" * 5000}, "preprocess of 'digits' has 5000 characters; give at most 4096"),
        (
            {"signature": Signature((TensorSpec("x", "FP32", (1,), labels=("x" * 2**22,)),), ())},
            "what is registered of 'digits' has .* without its files; keep signature",
        ),
    ],
)
def test_more_than_every_load_should_read_is_refused(
    catalog: Catalog, journal: Journal, admin, draft, fields, words
) -> None:
    with pytest.raises(SalverError, match=words) as refused:
        catalog.add_version(admin, draft(**fields))
    assert refused.value.code == "INVALID_ARTIFACT"
    assert journal.records() == ()


def test_a_version_as_large_as_may_be_can_still_be_read(catalog: Catalog, admin, draft, home: Home) -> None:
    files = tuple(FileEntry(f"{number:04}/{'x' * 200}", "a" * 64, 1) for number in range(10_000))
    manifest = catalog.add_version(admin, draft(files=files, metadata={"note": "x" * 65_000})).manifest
    bundle = sign_manifest(Keyring(home).signing(), manifest)
    assert open_bundle(bundle, Keyring(home).trusted()).claim.manifest.files == manifest.files


def test_no_signature_is_made_that_nobody_would_read(catalog: Catalog, admin, draft, home: Home) -> None:
    manifest = catalog.add_version(admin, draft()).manifest
    with pytest.raises(SalverError, match=r"the signature of digits@1\.0\.0 would have .* at most 8388608"):
        sign_manifest(Keyring(home).signing(), manifest, Publisher("k", "x" * 7_000_000))


def test_the_journal_says_who_registered_what(catalog: Catalog, journal: Journal, principal, draft, home: Home) -> None:
    manifest, *_ = catalog.add_version(principal("developer"), draft())
    (record,) = journal.records()
    assert (record.actor, record.action, record.subject) == ("a-developer", "register", "digits@1.0.0")
    signed_by = Keyring(home).signing().key_id
    known = {"digest": manifest.digest, "format": "onnx", "ordinal": 1, "trusts_code": False, "key_id": signed_by}
    assert record.details == known


@pytest.mark.parametrize("role", ["approver", "predictor"])
def test_registering_needs_the_right(catalog: Catalog, journal: Journal, principal, draft, role: str) -> None:
    with pytest.raises(SalverError, match=f"role {role}, which may not register"):
        catalog.add_version(principal(role), draft())
    assert journal.records() == ()


@pytest.mark.parametrize("fields", [{"trusts_code": True}, {"preprocess": "m:f"}, {"postprocess": "m:f"}])
def test_vouching_for_code_needs_a_right_of_its_own(catalog: Catalog, principal, draft, fields: dict) -> None:
    with pytest.raises(SalverError, match="role developer, which may not vouch for code"):
        catalog.add_version(principal("developer"), draft(**fields))
    assert catalog.add_version(principal("operator"), draft(**fields))[1]


def test_racing_threads_get_numbers_of_their_own(catalog: Catalog, journal: Journal, admin, draft) -> None:
    start = threading.Barrier(6)

    def race(content: str) -> tuple[str, int, bool]:
        start.wait()
        manifest, created, _ = catalog.add_version(admin, draft(content))
        return manifest.version, manifest.ordinal, created

    with ThreadPoolExecutor(6) as threads:
        results = sorted(threads.map(race, "abcdef"))
    assert results == [(f"1.0.{n}", n + 1, True) for n in range(6)]
    assert journal.verify() == ChainCheck.sound(6)


def test_of_threads_racing_with_the_same_thing_one_creates_it(catalog: Catalog, admin, draft) -> None:
    start = threading.Barrier(6)

    def race(_: int) -> tuple[str, bool]:
        start.wait()
        manifest, created, _ = catalog.add_version(admin, draft("a", version="1.0.0"))
        return manifest.digest, created

    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(race, range(6)))
    assert len({digest for digest, _ in results}) == 1
    assert sum(created for _, created in results) == 1


def test_of_threads_racing_for_one_number_with_other_bytes_one_wins(catalog: Catalog, admin, draft) -> None:
    start = threading.Barrier(6)

    def race(content: str) -> str:
        start.wait()
        try:
            return catalog.add_version(admin, draft(content, version="1.0.0"))[0].digest
        except SalverError as error:
            return error.code

    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(race, "abcdef"))
    assert results.count("ALREADY_EXISTS") == 5
    assert catalog.versions("digits")[0].digest in results


def test_racing_processes_get_numbers_of_their_own(catalog: Catalog, journal: Journal, home: Home, python) -> None:
    children = [python(REGISTER, home.path, name, 10) for name in ("one", "two")]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    lines = [line for child in children for line in child.communicate()[0].splitlines()]
    assert sorted(lines) == sorted(f"digits@1.0.{n} {n + 1}" for n in range(20))
    assert journal.verify() == ChainCheck.sound(20)


def test_every_registration_acknowledged_before_kill_9_is_there(home: Home, python, clock) -> None:
    child = python(REGISTER, home.path, "one", 100_000)
    assert child.stdout.readline() == "ready\n"
    child.stdin.write("go\n")
    child.stdin.flush()
    acknowledged = [child.stdout.readline().split()[0] for _ in range(30)]
    child.kill()
    child.wait()
    database = open_database(home)
    journal = Journal(database, clock)
    manifests = Catalog(database, journal, clock, Keyring(home)).versions("digits")
    assert {f"digits@1.0.{n}" for n in range(30)} == set(acknowledged)
    assert set(acknowledged) <= {manifest.reference for manifest in manifests}
    assert journal.verify() == ChainCheck.sound(len(manifests))
    database.close()


def test_a_draft_can_come_as_json_and_unknown_keys_are_refused(draft) -> None:
    encoded = msgspec.json.encode(draft())
    assert msgspec.json.decode(encoded, type=type(draft())) == draft()
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.json.decode(encoded[:-1] + b',"ordinal":7}', type=type(draft()))
