"""Users' code is loaded in processes that exist for it, and only as it was registered."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import pytest
from tests.signing import provenance, signed

from salver.clock import SYSTEM_CLOCK
from salver.protocol.errors import SalverError
from salver.protocol.tables import RuntimeOptions, Tables
from salver.runtime.declaration import Declaration
from salver.runtime.formats import Source, format_named
from salver.runtime.formats.python import import_attribute
from salver.runtime.host import Host
from salver.runtime.loader import load_version
from salver.runtime.recorder import FlightRecorder
from salver.telemetry.metrics import Metrics
from salver.testing import SIGNATURE, make_spec

MODEL = """
open({canary!r}, "w").close()
import salver
class Only(salver.Model):
    def predict(self, inputs):
        return {{"y": inputs["x"]}}
def pre(arrays):
    return arrays
"""


def identity() -> bytes:
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def processed(store: Any, canary: Any, toml: str, **changes: Any) -> Any:
    """A graph with code beside it, and a declaration."""
    files = {"m.onnx": identity(), "canary_steps.py": MODEL.format(canary=str(canary)), "salver-model.toml": toml}
    return store.version(files, **{"format": "onnx", "trusts_code": False, "signature": SIGNATURE, **changes})


async def test_a_version_that_hides_its_preprocessing_fails_to_load_and_runs_nothing(store, tmp_path) -> None:
    canary = tmp_path / "canary"
    manifest = signed(processed(store, canary, 'preprocess = "canary_steps:pre"'))
    assert not manifest.runs_user_code, "so it is loaded in the server process"
    host = Host(
        store.blobs,
        store.scratch,
        FlightRecorder(store.root / "flight"),
        Metrics(),
        SYSTEM_CLOCK,
        provenance(),
        isolated=(),
        on_change=lambda: None,
        on_hang=lambda _: None,
    )
    host.apply(Tables(1, (manifest,), (make_spec(),)))
    await host.settled()
    (status,) = host.status()
    assert (status.code, host.pools()) == ("REFUSED_BY_POLICY", {})
    assert "preprocess" in status.problem
    assert not canary.exists()
    assert "canary_steps" not in sys.modules
    assert list(store.scratch.iterdir()) == []
    await host.close(1.0)


DECLARED = {
    "preprocess": 'preprocess = "canary_steps:pre"',
    "postprocess": 'postprocess = "canary_steps:pre"',
    "kind": 'kind = "embed"',
    "idempotent": "idempotent = false",
    "warm_up": "warm_up = true",
    "format": 'format = "python"',
    "entry": 'entry = "canary_steps:Only"',
    "cost": (
        'cost = "x"\n[[inputs]]\nname = "x"\ndatatype = "FP32"\nshape = [-1, 2]\n'
        '[[outputs]]\nname = "y"\ndatatype = "FP32"\nshape = [-1, 2]'
    ),
}


@pytest.mark.parametrize(("field", "toml"), DECLARED.items(), ids=DECLARED.keys())
def test_what_the_file_says_is_what_was_registered(store, tmp_path, users_code, field, toml) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(SalverError, match=field) as raised:
        load_version(processed(store, canary, toml), RuntimeOptions(), store.blobs, store.scratch)
    assert raised.value.code == "REFUSED_BY_POLICY"
    assert not canary.exists()
    assert list(store.scratch.iterdir()) == []


@pytest.mark.parametrize("field", ["preprocess", "postprocess"])
def test_what_was_registered_is_what_the_file_says(store, users_code, field) -> None:
    for files in ({"m.onnx": identity()}, {"m.onnx": identity(), "notes.txt": "beside"}):
        manifest = store.version(files, format="onnx", signature=SIGNATURE, **{field: "steps:f"})
        with pytest.raises(SalverError, match=field) as raised:
            load_version(manifest, RuntimeOptions(), store.blobs, store.scratch)
        assert raised.value.code == "REFUSED_BY_POLICY"


def test_outside_a_worker_a_version_with_code_is_refused_before_its_files_are_laid_out(store, tmp_path) -> None:
    canary = tmp_path / "canary"
    toml = 'preprocess = "canary_steps:pre"'
    honest = processed(store, canary, toml, preprocess="canary_steps:pre")
    python = store.version({"canary_model.py": MODEL.format(canary=str(canary))})
    trusted = store.version({"m.pkl": pickle.dumps(1)}, format="sklearn")
    for manifest in (honest, python, trusted):
        with pytest.raises(SalverError, match="outside a worker") as raised:
            load_version(manifest, RuntimeOptions(), store.blobs, store.scratch)
        assert raised.value.code == "REFUSED_BY_POLICY"
    assert not canary.exists()
    assert list(store.scratch.iterdir()) == []


def test_outside_a_worker_nothing_of_an_artifact_is_imported_whoever_asks(tmp_path) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "canary_model.py").write_text(MODEL.format(canary=str(canary)))
    before = list(sys.path)
    chosen = format_named("python")
    source = Source(tmp_path, tmp_path / "canary_model.py")
    for act in (
        lambda: import_attribute(tmp_path, "canary_model:pre"),
        lambda: chosen.load(source, Declaration(), RuntimeOptions()),
        lambda: chosen.load(source, Declaration(entry="canary_model:Only"), RuntimeOptions()),
        lambda: chosen.signature(source, Declaration()),
    ):
        with pytest.raises(SalverError, match="outside a worker"):
            act()
    assert not canary.exists()
    assert sys.path == before


def test_outside_a_worker_no_pickle_is_opened_whoever_asks(tmp_path) -> None:
    import os

    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self) -> object:
            return os.open, (str(canary), os.O_CREAT | os.O_WRONLY)

    (tmp_path / "m.pkl").write_bytes(pickle.dumps(Bomb()))
    chosen = format_named("sklearn")
    source = Source(tmp_path, tmp_path / "m.pkl")
    for act in (
        lambda: chosen.load(source, Declaration(), RuntimeOptions()),
        lambda: chosen.signature(source, Declaration()),
    ):
        with pytest.raises(SalverError, match="outside a worker"):
            act()
    assert not canary.exists()


def test_outside_a_worker_no_type_is_built_that_skops_does_not_trust(tmp_path) -> None:
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    path = tmp_path / "m.skops"
    skops.io.dump(FunctionTransformer(func=os_getpid), path)
    source = Source(tmp_path, path)
    chosen = format_named("sklearn")
    assert chosen.code_in(source)
    with pytest.raises(SalverError, match="outside a worker"):
        chosen.load(source, Declaration(), RuntimeOptions())


def os_getpid(rows: Any) -> Any:
    return rows


def test_registering_refuses_an_entry_that_its_format_would_not_run(tmp_path) -> None:
    from salver.runtime.artifact import read_artifact

    (tmp_path / "m.onnx").write_bytes(identity())
    (tmp_path / "salver-model.toml").write_text('format = "onnx"\nentry = "steps:Only"')
    with pytest.raises(SalverError, match="entry") as raised:
        read_artifact(tmp_path)
    assert raised.value.code == "INVALID_ARTIFACT"


def test_a_named_format_may_not_contradict_the_declared_one(tmp_path) -> None:
    from salver.runtime.artifact import read_artifact

    (tmp_path / "m.onnx").write_bytes(identity())
    (tmp_path / "salver-model.toml").write_text('format = "sklearn"')
    with pytest.raises(SalverError, match="format") as raised:
        read_artifact(tmp_path, format="onnx")
    assert raised.value.code == "INVALID_ARTIFACT"
