"""What may be loaded is decided by signatures and the revocation list, in this process and in each worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.runtime.hosting import hosting
from tests.runtime.workers import free
from tests.signing import KEY, TRUSTED, provenance, signed

from salver.clock import SYSTEM_CLOCK
from salver.protocol.errors import SalverError
from salver.protocol.tables import Placement, Revocation, Tables
from salver.runtime.pool import Pool
from salver.runtime.provenance import Provenance, require_signed, trusted_keys_of
from salver.runtime.worker_replica import WorkerReplica
from salver.security.keys import SigningKey, TrustedKeys, new_signing_pem
from salver.storage.home import Home
from salver.storage.trust import TrustDirectory
from salver.telemetry.metrics import VersionMetrics
from salver.testing import make_manifest, make_spec

REVOKED = Revocation("arithmetic", "1.0.0", "wrong labels", "ann", 1.0)


def test_what_is_signed_and_not_revoked_may_be_loaded() -> None:
    rule = provenance()
    assert rule.require(signed(make_manifest())) == (KEY.public.pem,)
    rule.revoke((REVOKED,))
    with pytest.raises(SalverError, match=r"arithmetic@1\.0\.0 was revoked: wrong labels") as raised:
        rule.require(signed(make_manifest()))
    assert raised.value.code == "REFUSED_BY_POLICY"
    assert rule.require(signed(make_manifest(version="1.0.1")))
    rule.revoke(())
    assert rule.require(signed(make_manifest()))


def test_a_key_that_is_distrusted_while_the_server_runs_makes_nothing_load_any_more(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    rule = Provenance(trusted_keys_of(home))
    with pytest.raises(SalverError, match="not by a key that this home trusts"):
        rule.require(signed(make_manifest()))
    directory = TrustDirectory(home.trust_path)
    directory.add(KEY.key_id, KEY.public.pem)
    (home.trust_path / "broken.pub").write_bytes(b"")
    assert rule.require(signed(make_manifest())) == (KEY.public.pem,)
    directory.distrust(KEY.key_id, KEY.public.pem, ())
    with pytest.raises(SalverError, match="not by a key that this home trusts"):
        rule.require(signed(make_manifest()))


def test_a_worker_looks_for_itself() -> None:
    manifest = signed(make_manifest())
    require_signed(manifest, TRUSTED.pems)
    for pems in ((), (SigningKey.parse(new_signing_pem()).public.pem,)):
        with pytest.raises(SalverError, match="not by a key that this home trusts"):
            require_signed(manifest, pems)
    with pytest.raises(SalverError, match="signed with another trusts_code"):
        require_signed(msgspec.structs.replace(manifest, trusts_code=True), TRUSTED.pems)


@pytest.mark.parametrize("placement", [Placement.THREAD, Placement.PROCESS])
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"trusts_code": True, "metadata": {}}, "signed with another trusts_code"),
        ({"digest": "00" * 32}, "signed with another digest"),
        ({"attestation": ""}, "is not signed"),
    ],
)
async def test_an_edited_snapshot_loads_nothing_wherever_it_computes(store, shelf, placement, changes, problem) -> None:
    manifest = msgspec.structs.replace(signed(make_manifest()), **changes)
    spec = make_spec(placement=placement if not manifest.runs_user_code else Placement.AUTO)
    async with hosting(store, shelf) as one:
        one.host.apply(Tables(1, (manifest,), (spec,)))
        await one.host.settled()
        assert (one.status.code, one.host.pools(), shelf.models) == ("REFUSED_BY_POLICY", {}, {})
        assert problem in one.status.problem


async def test_a_revoked_version_does_not_load_and_one_that_is_loaded_answers_on(store, shelf) -> None:
    manifest = signed(make_manifest())
    async with hosting(store, shelf) as one:
        one.host.apply(Tables(1, (manifest,), (make_spec(),)))
        await one.host.settled()
        assert one.status.problem is None
        one.host.apply(Tables(2, (manifest,), (make_spec(),), revocations=(REVOKED,)))
        await one.host.settled()
        assert (await one.ask(1)).array("y") is not None
        one.host.apply(Tables(3, (manifest,), (make_spec(generation=3),), revocations=(REVOKED,)))
        await one.host.settled()
        assert one.status.code == "REFUSED_BY_POLICY"
        assert one.status.problem.startswith("arithmetic@1.0.0 was revoked: wrong labels")
        assert (await one.ask(1)).array("y") is not None, "the load that failed leaves what serves"


async def test_a_worker_refuses_what_its_server_would_have_let_pass(store) -> None:
    class Careless(Provenance):
        def require(self, manifest: Any) -> tuple[bytes, ...]:
            del manifest
            return TRUSTED.pems

    manifest = msgspec.structs.replace(signed(free(store, "")), idempotent=False)
    pool = Pool(make_spec(), manifest, VersionMetrics(), SYSTEM_CLOCK)
    replica = WorkerReplica(pool, store.blobs, store.scratch, SYSTEM_CLOCK, Careless(lambda: TrustedKeys({})))
    with pytest.raises(SalverError, match="signed with another idempotent") as raised:
        await replica.launch()
    assert raised.value.code == "REFUSED_BY_POLICY"
    await replica.stop()
    assert list(store.scratch.iterdir()) == []
