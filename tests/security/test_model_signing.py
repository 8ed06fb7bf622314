"""What is signed cannot be changed, in any field or byte; the tool itself is asked in tests/foreign_clients."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.signing import KEY, TRUSTED, signed

from salver.protocol.errors import SalverError
from salver.protocol.profile import FeatureProfile, InputProfile, Profile
from salver.protocol.signature import Signature
from salver.protocol.tables import FileEntry, StateSpec, VersionManifest
from salver.security.keys import SigningKey, TrustedKeys, new_signing_pem
from salver.security.model_signing import (
    LONGEST_BUNDLE_BYTES,
    Publisher,
    differences,
    open_bundle,
    require_manifest,
    sign_manifest,
)
from salver.testing import SIGNATURE, make_manifest

FILES = (
    FileEntry(".gitattributes", "aa" * 32, 4),
    FileEntry("a b.json", "bb" * 32, 5),
    FileEntry("a/z", "cc" * 32, 6),
    FileEntry("model.onnx", "dd" * 32, 7),
)
MANIFEST = make_manifest(files=FILES, metadata={"owner": "ann"})
STATE = StateSpec("s", "t", "FP32", (-1, 2))
PROFILE = Profile((InputProfile("x", 1, (FeatureProfile(0.0, 1.0, 0.5, 0.1, 0),)),))
OTHERS: dict[str, Any] = {
    "model": "another",
    "version": "1.0.1",
    "ordinal": 2,
    "digest": "ef" * 32,
    "format": "python",
    "files": (*FILES[:3], FileEntry("model.onnx", "de" * 32, 7)),
    "signature": Signature(SIGNATURE.inputs, SIGNATURE.inputs),
    "kind": "embed",
    "preprocess": "m:f",
    "postprocess": "m:f",
    "cost": "m:f",
    "length": "x",
    "idempotent": False,
    "trusts_code": True,
    "profile": PROFILE,
    "metadata": {"owner": "bob"},
    "warm_up": False,
    "streams": True,
    "states": (STATE,),
}


def test_what_is_signed_verifies_and_says_who_signed() -> None:
    found = require_manifest(signed(MANIFEST), TRUSTED)
    assert (found.key_id, found.subject) == (KEY.key_id, "arithmetic@1.0.0")
    assert list(found.files) == ["a/z", "a b.json", "model.onnx"], "in the tool's order, by parts, without git's files"
    assert found.all_files == {file.path: file.sha256 for file in FILES}
    assert found.claim is not None
    assert found.claim.manifest == MANIFEST


def test_every_field_is_tried_below() -> None:
    assert set(OTHERS) == set(VersionManifest.__struct_fields__) - {"attestation"}


@pytest.mark.parametrize("field", OTHERS)
def test_no_field_of_a_manifest_can_be_changed_without_its_signature(field: str) -> None:
    changed = msgspec.structs.replace(signed(MANIFEST), **{field: OTHERS[field]})
    with pytest.raises(SalverError, match=f"was signed with another {field}") as raised:
        require_manifest(changed, TRUSTED)
    assert raised.value.code == "REFUSED_BY_POLICY"


@pytest.mark.parametrize(
    "files",
    [FILES[:3], (*FILES, FileEntry("b", "00" * 32, 1)), (FileEntry(".gitattributes", "ab" * 32, 4), *FILES[1:])],
)
def test_no_file_can_be_left_out_added_or_changed(files: tuple[FileEntry, ...]) -> None:
    with pytest.raises(SalverError, match="another files"):
        require_manifest(msgspec.structs.replace(signed(MANIFEST), files=files), TRUSTED)


def test_a_manifest_without_a_signature_or_with_that_of_another_version_is_refused() -> None:
    with pytest.raises(SalverError, match=r"arithmetic@1\.0\.0 is not signed"):
        require_manifest(MANIFEST, TRUSTED)
    older = signed(msgspec.structs.replace(MANIFEST, version="0.9.0"))
    with pytest.raises(SalverError, match="another version"):
        require_manifest(msgspec.structs.replace(MANIFEST, attestation=older.attestation), TRUSTED)


def test_a_signature_of_a_key_that_is_not_trusted_is_refused() -> None:
    other = SigningKey.parse(new_signing_pem())
    forged = msgspec.structs.replace(MANIFEST, attestation=sign_manifest(other, MANIFEST))
    with pytest.raises(SalverError, match="not by a key that this home trusts"):
        require_manifest(forged, TRUSTED)
    with pytest.raises(SalverError, match="not by a key that this home trusts"):
        require_manifest(signed(MANIFEST), TrustedKeys({}))


def test_a_version_is_trusted_no_longer_than_the_key_its_files_came_with() -> None:
    other = SigningKey.parse(new_signing_pem())
    bundle = sign_manifest(KEY, MANIFEST, Publisher(other.key_id, "their bundle"))
    manifest = msgspec.structs.replace(MANIFEST, attestation=bundle)
    both = TrustedKeys({KEY.key_id: KEY.public, other.key_id: other.public})
    claim = require_manifest(manifest, both).claim
    assert claim is not None
    assert claim.publisher == Publisher(other.key_id, "their bundle")
    with pytest.raises(SalverError, match=f"the key {other.key_id[:16]}, which this home does not trust any more"):
        require_manifest(manifest, TRUSTED)


def test_signing_signs_the_manifest_and_not_an_older_signature_in_it() -> None:
    again = sign_manifest(KEY, signed(MANIFEST))
    assert require_manifest(msgspec.structs.replace(MANIFEST, attestation=again), TRUSTED)


def _edited(change: Callable[[dict[str, Any]], Any]) -> str:
    bundle = json.loads(signed(MANIFEST).attestation)
    change(bundle)
    return json.dumps(bundle)


def _payload(bundle: dict[str, Any], change: Callable[[dict[str, Any]], Any], key: SigningKey | None) -> None:
    """Change the statement inside; signed anew with `key` where there is one."""
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    change(statement)
    payload = json.dumps(statement).encode()
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    if key is not None:
        kind = bundle["dsseEnvelope"]["payloadType"]
        signature = key.sign(f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload)
        bundle["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signature).decode()


ENVELOPES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another media type": lambda b: b.update(mediaType="application/json"),
    "another payload type": lambda b: b["dsseEnvelope"].update(payloadType="text/plain"),
    "no signature": lambda b: b["dsseEnvelope"].update(signatures=[]),
    "two signatures": lambda b: b["dsseEnvelope"].update(signatures=b["dsseEnvelope"]["signatures"] * 2),
    "no base64": lambda b: b["dsseEnvelope"]["signatures"][0].update(sig="%%"),
    "another signature": lambda b: b["dsseEnvelope"]["signatures"][0].update(sig="MEQCIA=="),
    "another hint": lambda b: b["verificationMaterial"]["publicKey"].update(hint="00" * 32),
    "another statement": lambda b: _payload(b, lambda s: s["subject"][0].update(name="x"), None),
    "no envelope": lambda b: b.pop("dsseEnvelope"),
}
STATEMENTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another type": lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"),
    "another predicate": lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"),
    "two subjects": lambda s: s.update(subject=s["subject"] * 2),
    "another root": lambda s: s["subject"][0]["digest"].update(sha256="00" * 32),
    "a file twice": lambda s: s["predicate"]["resources"].append(s["predicate"]["resources"][0]),
    "another order": lambda s: s["predicate"]["resources"].reverse(),
    "another hash": lambda s: s["predicate"]["resources"][0].update(algorithm="blake3"),
    "no digest": lambda s: s["predicate"]["resources"][0].update(digest="zz"),
    "a short digest": lambda s: s["predicate"]["resources"][0].update(digest="ab"),
    "shards": lambda s: s["predicate"]["serialization"].update(method="shards", shard_size=1),
    "hashed otherwise": lambda s: s["predicate"]["serialization"].update(hash_type="blake2b"),
    "no predicate": lambda s: s.pop("predicate"),
}


@pytest.mark.parametrize("change", ENVELOPES.values(), ids=ENVELOPES)
def test_an_edited_envelope_is_refused(change) -> None:
    with pytest.raises(SalverError) as raised:
        open_bundle(_edited(change), TRUSTED)
    assert raised.value.code in ("INVALID_ARTIFACT", "REFUSED_BY_POLICY")


@pytest.mark.parametrize("change", STATEMENTS.values(), ids=STATEMENTS)
def test_a_statement_that_says_something_else_is_refused_though_a_trusted_key_signed_it(change) -> None:
    with pytest.raises(SalverError) as raised:
        open_bundle(_edited(lambda bundle: _payload(bundle, change, KEY)), TRUSTED)
    assert raised.value.code in ("INVALID_ARTIFACT", "UNSUPPORTED")


def test_files_that_are_signed_but_not_as_a_version_do_not_load() -> None:
    bundle = _edited(lambda found: _payload(found, lambda s: s["predicate"].pop("salver"), KEY))
    assert open_bundle(bundle, TRUSTED).claim is None
    with pytest.raises(SalverError, match="signed, but not as a version"):
        require_manifest(msgspec.structs.replace(MANIFEST, attestation=bundle), TRUSTED)


def test_a_signed_list_of_other_files_than_the_signed_manifest_does_not_load() -> None:
    def swap(statement: dict[str, Any]) -> None:
        other = sign_manifest(KEY, make_manifest())
        payload = json.loads(base64.b64decode(json.loads(other)["dsseEnvelope"]["payload"]))
        statement["predicate"]["resources"] = payload["predicate"]["resources"]
        statement["subject"] = payload["subject"]

    bundle = _edited(lambda found: _payload(found, swap, KEY))
    with pytest.raises(SalverError, match="is signed with other files"):
        require_manifest(msgspec.structs.replace(MANIFEST, attestation=bundle), TRUSTED)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_truncated_or_damaged_bundle_is_refused_or_still_says_the_same(data: st.DataObject) -> None:
    text = signed(MANIFEST).attestation.encode()
    at = data.draw(st.integers(0, len(text) - 1))
    damaged = (
        text[:at]
        if data.draw(st.booleans())
        else text[:at] + bytes([text[at] ^ data.draw(st.integers(1, 255))]) + text[at + 1 :]
    )
    try:
        found = open_bundle(damaged, TRUSTED)
    except SalverError as error:
        assert error.code in ("INVALID_ARTIFACT", "REFUSED_BY_POLICY")
    else:
        assert found == open_bundle(text, TRUSTED)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_whatever_the_bytes_are_they_are_refused_in_words(data: bytes) -> None:
    with pytest.raises(SalverError, match="the signature cannot be read"):
        open_bundle(data, TRUSTED)


def test_a_bundle_beyond_its_limit_is_not_read() -> None:
    with pytest.raises(SalverError, match="more than 8388608 bytes"):
        open_bundle(b" " * (LONGEST_BUNDLE_BYTES + 1), TRUSTED)


def test_differences_are_told_file_by_file() -> None:
    signed_files = {file.path: file.sha256 for file in FILES[:3]}
    files = [FILES[0], FileEntry("a/z", "ff" * 32, 1), FILES[3]]
    assert differences(signed_files, files) == [
        "file 'a b.json' is missing",
        "file 'model.onnx' is not signed",
        "file 'a/z' has other bytes",
    ]
    assert differences(signed_files, FILES[:3]) == []
