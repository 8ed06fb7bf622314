from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.runtime.hosting import V1, V2, Hosting, hosting
from tests.signing import signed

from salver.protocol.errors import SalverError
from salver.protocol.tables import Placement, VersionManifest
from salver.runtime import host as host_module
from salver.runtime.curve import Measured
from salver.runtime.host import placement_of
from salver.runtime.status import LoadState
from salver.testing import eventually, make_manifest, make_spec


async def test_a_deployment_is_loaded_warmed_up_and_serves(store, shelf) -> None:
    async with hosting(store, shelf) as one:
        await one.settle((V1, make_spec()))
        assert one.changes == 1
        assert (await one.ask(1)).array("y").tolist() == [[3, 3]]
        status = one.status
        assert (status.state, status.serving, status.available) == (LoadState.READY, "arithmetic@1.0.0", True)
        assert set(status.curve) >= {"1", "2", "4"}, "warming up measured growing batches"
        assert [len(batch) for batch in shelf.model("1.0.0").batches[:6]] == [1, 1, 1, 1, 1, 2]
        assert one.host.is_ready()


async def test_applying_the_same_tables_twice_loads_once(store, shelf) -> None:
    async with hosting(store, shelf) as one:
        await one.settle((V1, make_spec()))
        await one.settle((V1, make_spec()))
        assert len(shelf.models["1.0.0"]) == 1
        await one.settle((V1, make_spec(generation=2)))
        assert len(shelf.models["1.0.0"]) == 2


async def test_a_swap_under_requests_loses_none_and_each_answer_names_its_version(store, shelf) -> None:
    async with hosting(store, shelf) as one:
        spec = make_spec(placement=Placement.THREAD)
        await one.settle((V1, spec))
        shelf.model("1.0.0").hold()
        before = [one.ask(value) for value in range(3)]
        await eventually(shelf.model("1.0.0").entered.is_set)
        await one.settle((V2, spec))
        after = await one.ask(9)
        assert after.version == "2.0.0"
        assert not any(future.done() for future in before)
        shelf.model("1.0.0").release()
        for value, future in enumerate(before):
            response = await future
            assert (response.version, response.array("y")[0, 0]) == ("1.0.0", 2 * value + 1)
        await eventually(lambda: shelf.model("1.0.0").unloads)
        assert one.status.serving == "arithmetic@2.0.0"


FAILURES = {
    "a refusal": (SalverError("CORRUPT_ARTIFACT", "bytes differ"), "CORRUPT_ARTIFACT"),
    "an exception": (RuntimeError("/home/someone/secret"), "LOAD_FAILED"),
    "no memory": (MemoryError(), "LOAD_FAILED"),
}


@pytest.mark.parametrize(("failure", "code"), FAILURES.values(), ids=FAILURES.keys())
async def test_a_load_that_fails_leaves_the_serving_version_as_it_is(store, shelf, failure, code) -> None:
    async with hosting(store, shelf) as one:
        await one.settle((V1, make_spec()))
        shelf.failures["2.0.0"] = failure
        await one.settle((V2, make_spec()))
        status = one.status
        assert (status.state, status.code, status.serving) == (LoadState.FAILED, code, "arithmetic@1.0.0")
        assert "/home" not in status.problem
        assert (await one.ask(1)).version == "1.0.0"
        assert one.host.is_ready()
        assert one.changes == 2
        await one.settle((V1, make_spec()))
        assert (one.status.state, one.status.code) == (LoadState.READY, None)


async def test_a_version_whose_first_answers_contradict_its_signature_does_not_serve(store, shelf) -> None:
    async with hosting(store, shelf) as one:
        narrow = make_manifest(
            signature=msgspec.structs.replace(
                V1.signature, outputs=(msgspec.structs.replace(V1.signature.outputs[0], shape=(-1, 1)),)
            )
        )
        await one.settle((narrow, make_spec()))
        assert one.status.code == "BAD_MODEL_OUTPUT"
        assert not one.host.is_ready()
        await eventually(lambda: shelf.model("1.0.0").unloads)


async def test_those_who_run_the_server_are_told_what_was_raised_and_nobody_else(store, shelf, caplog) -> None:
    shelf.failures["1.0.0"] = OSError("weights not found: /data/w.bin")
    async with hosting(store, shelf) as one:
        await one.settle((V1, make_spec()))
        assert one.status.cause == "OSError: weights not found: /data/w.bin"
        assert one.status.problem.startswith("arithmetic@1.0.0 raised OSError while it was loaded; ")
        assert "weights" not in str(one.host.error_of("arithmetic"))
        (failed,) = [record.fields for record in caplog.records if record.message == "load_failed"]
        assert (failed["endpoint"], failed["cause"]) == ("arithmetic", one.status.cause)
        del shelf.failures["1.0.0"]
        await one.settle((V1, make_spec(generation=2)))
        assert one.status.cause is None


async def test_what_is_unloaded_says_of_which_endpoint_and_why(store, shelf, caplog) -> None:
    def unloaded() -> list[tuple[str, str, str]]:
        records = [record.fields for record in caplog.records if record.message == "unloaded"]
        return [(fields["endpoint"], fields["version"], fields["reason"]) for fields in records]

    with caplog.at_level("INFO", logger="salver"):
        async with hosting(store, shelf) as one:
            await one.settle((V1, make_spec()), (V1, make_spec(endpoint="goes")))
            await one.settle((V2, make_spec()))
            await eventually(lambda: len(unloaded()) == 2)
    assert sorted(unloaded()) == [
        ("arithmetic", "arithmetic@1.0.0", "replaced"),
        ("arithmetic", "arithmetic@2.0.0", "stopped"),
        ("goes", "arithmetic@1.0.0", "undeployed"),
    ]


async def test_a_load_that_takes_too_long_fails_and_frees_what_comes_late(store, shelf) -> None:
    late = threading.Event()
    shelf.preparations["2.0.0"] = lambda: late.wait(30)
    async with hosting(store, shelf) as one:
        await one.settle((V1, make_spec()))
        await one.settle((V2, make_spec(load_timeout_s=0.05)))
        assert one.status.code == "LOAD_FAILED"
        assert "within 0.05 s" in one.status.problem
        assert (await one.ask(1)).version == "1.0.0"
        late.set()
        await eventually(lambda: "2.0.0" in shelf.models and shelf.model("2.0.0").unloads)


async def test_a_warm_up_that_hangs_is_a_load_that_takes_too_long(store, shelf) -> None:
    manifest = store.python("time.sleep(600)", warm_up=True)
    async with hosting(store, shelf) as one:
        await one.settle((manifest, make_spec(load_timeout_s=3.0)))
        assert one.status.code == "LOAD_FAILED"
        assert "within 3 s" in one.status.problem
        assert one.host.pools() == {}


async def test_replicas_load_side_by_side_and_their_measurements_are_put_together(store, shelf, monkeypatch) -> None:
    both = threading.Barrier(2)
    shelf.preparations["1.0.0"] = lambda: both.wait(10)
    measured = iter([Measured({1: 0.001}, 0.5), Measured({3: 0.002}, 0.25)])
    monkeypatch.setattr(host_module, "warm_up", lambda *_: next(measured))
    async with hosting(store, shelf) as one:
        await one.settle((V1, make_spec(replicas=2)))
        assert (one.status.state, one.status.replicas) == (LoadState.READY, 2)
        assert one.status.curve == {"1": 0.001, "3": 0.002}
        assert one.host.pools()["arithmetic"].curve.longest_s == 0.5


async def test_replicas_in_workers_load_side_by_side_too(store, shelf, tmp_path) -> None:
    manifest = store.version({"model.py": MEETING.format(place=str(tmp_path / "meeting"))})
    async with hosting(store, shelf) as one:
        await one.settle((manifest, make_spec(replicas=2)))
        assert (one.status.state, len(set(one.status.workers))) == (LoadState.READY, 2)


async def test_of_all_endpoints_together_only_so_many_load_at_once(store, shelf, monkeypatch) -> None:
    monkeypatch.setattr(host_module, "_LOADS_AT_ONCE", 2)
    pairs, lock = threading.Barrier(2), threading.Lock()
    loading, most = 0, 0

    def load() -> None:
        nonlocal loading, most
        with lock:
            loading += 1
            most = max(most, loading)
        pairs.wait(10)
        with lock:
            loading -= 1

    shelf.preparations["1.0.0"] = load
    async with hosting(store, shelf) as one:
        await one.settle(*((V1, make_spec(endpoint=name, replicas=2)) for name in ("a", "b", "c")))
        assert [row.replicas for row in one.host.status()] == [2, 2, 2]
        assert most == 2


async def test_a_replica_that_fails_to_load_takes_the_others_with_it(store, shelf, monkeypatch) -> None:
    turns = iter([None, RuntimeError("the second one fails")])

    def warm_up(*_: object) -> Measured:
        if failure := next(turns):
            raise failure
        return Measured()

    monkeypatch.setattr(host_module, "warm_up", warm_up)
    async with hosting(store, shelf) as one:
        await one.settle((V1, make_spec(replicas=2)))
        assert (one.status.state, one.status.code) == (LoadState.FAILED, "LOAD_FAILED")
        assert len(shelf.models["1.0.0"]) == 2, "and both are freed, which leaving asserts"


async def test_loads_that_hang_do_not_keep_others_waiting(store, shelf) -> None:
    never = threading.Event()
    for version in ("2.0.0", "3.0.0"):
        shelf.preparations[version] = lambda: never.wait(30)
    async with hosting(store, shelf) as one:
        stuck = [
            (make_manifest(version=version), make_spec(endpoint=version, load_timeout_s=0.05))
            for version in ("2.0.0", "3.0.0")
        ]
        await one.settle(*stuck)
        await one.settle(*stuck, (V1, make_spec()))
        assert (await one.ask(1)).version == "1.0.0"
        never.set()
        await eventually(lambda: shelf.models.keys() == {"1.0.0", "2.0.0", "3.0.0"})


async def test_what_is_omitted_is_drained_and_removed(store, shelf) -> None:
    async with hosting(store, shelf) as one:
        await one.settle((V1, make_spec(placement=Placement.THREAD)))
        shelf.model("1.0.0").hold()
        running = one.ask(1)
        await eventually(shelf.model("1.0.0").entered.is_set)
        one.apply()
        assert one.host.pools() == {}
        assert one.host.is_ready()
        shelf.model("1.0.0").release()
        assert (await running).array("y").tolist() == [[3, 3]]
        await eventually(lambda: shelf.model("1.0.0").unloads)


async def test_only_required_endpoints_make_a_server_unready(store, shelf) -> None:
    shelf.failures["2.0.0"] = RuntimeError("broken")
    async with hosting(store, shelf) as one:
        await one.settle((V1, make_spec()), (V2, make_spec(endpoint="extra", required=False)))
        assert one.host.is_ready()
        await one.settle((V1, make_spec()), (V2, make_spec(endpoint="extra")))
        assert not one.host.is_ready()
        assert one.host.error_of("extra").code == "LOAD_FAILED"


async def test_closing_answers_what_is_left(store, shelf) -> None:
    one = Hosting(store, shelf)
    await one.settle((V1, make_spec(placement=Placement.THREAD)))
    model = shelf.model("1.0.0")
    model.hold()
    running = one.ask(1)
    await eventually(model.entered.is_set)
    await one.host.close(timeout_s=0.05)
    assert running.exception().code == "NOT_READY"
    model.release()
    await eventually(lambda: model.unloads)


async def test_auto_moves_a_version_that_hung_into_a_worker(store, shelf, monkeypatch) -> None:
    manifest = store.python("", format="onnx", trusts_code=False, idempotent=True)
    # A data format to the host, which computes in this process; the worker finds Python.
    real = signed(store.python(""))
    monkeypatch.setattr(host_module, "WorkerReplica", _substituting(real))
    async with hosting(store, shelf) as one:
        await one.settle((manifest, make_spec(hang_s=0.2)))
        assert placement_of(one.host.pools()["arithmetic"]) in ("inline", "thread")
        pool = one.host.pools()["arithmetic"]
        replica: Any = pool.replicas[0]
        replica._fixed = Placement.THREAD
        replica._placement = Placement.THREAD
        shelf.model("1.0.0").hold()
        with pytest.raises(SalverError) as raised:
            await one.ask(1)
        assert raised.value.code == "MODEL_HUNG"
        assert one.hung == [manifest.digest]
        await eventually(lambda: one.host.pools()["arithmetic"] is not pool, within_s=20.0)
        assert one.status.placement == "process"
        assert (await one.ask(1)).array("y").tolist() == [[3, 3]]
        assert len(one.status.workers) == 1


def _substituting(real: VersionManifest) -> Any:
    class Substituting(host_module.WorkerReplica):
        def __init__(self, pool: Any, *rest: Any) -> None:
            super().__init__(pool, *rest)
            self._order = msgspec.structs.replace(self._order, manifest=real)

    return Substituting


async def test_user_code_goes_to_a_worker_whatever_the_placement_says(store, shelf) -> None:
    async with hosting(store, shelf) as one:
        manifest = store.python("", trusts_code=False)
        assert manifest.runs_user_code
        await one.settle((manifest, make_spec(placement=Placement.INLINE, replicas=2)))
        assert one.status.placement == "process"
        assert len(set(one.status.workers)) == 2
        assert (await one.ask(1)).array("y").tolist() == [[3, 3]]
        assert shelf.models == {}


async def test_a_worker_load_that_fails_on_the_second_replica_frees_the_first(store, shelf, tmp_path) -> None:
    counter = tmp_path / "count"
    manifest = store.version({"model.py": COUNTING.format(counter=str(counter))})
    async with hosting(store, shelf) as one:
        await one.settle((manifest, make_spec(replicas=2)))
        assert one.status.state is LoadState.FAILED
        assert counter.read_text() == "xx"
        assert one.host.pools() == {}
        assert list(Path(store.scratch).iterdir()) == []


MEETING = """
import os, pathlib, threading
import salver
class Meeting(salver.Model):
    inputs = [salver.TensorSpec("x", "FP32", (-1, 2))]
    outputs = [salver.TensorSpec("y", "FP32", (-1, 2))]
    def load(self, path):
        place = pathlib.Path({place!r})
        place.mkdir(exist_ok=True)
        (place / str(os.getpid())).touch()
        for _ in range(1000):
            if len(list(place.iterdir())) == 2:
                return
            threading.Event().wait(0.01)
        raise TimeoutError("nobody else came")
    def predict(self, inputs):
        return {{"y": inputs["x"]}}
"""
COUNTING = """
import salver
with open({counter!r}, "a") as file:
    file.write("x")
    file.flush()
    if file.tell() > 1:
        raise RuntimeError("the second one fails")
class Once(salver.Model):
    inputs = [salver.TensorSpec("x", "FP32", (-1, 2))]
    outputs = [salver.TensorSpec("y", "FP32", (-1, 2))]
    def predict(self, inputs):
        return {{"y": inputs["x"]}}
"""
