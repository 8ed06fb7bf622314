"""Exported programs of PyTorch answer in a worker what they answer by themselves."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import RuntimeOptions
from salver.runtime.artifact import read_artifact
from salver.runtime.declaration import Declaration
from salver.runtime.formats import Source, format_named

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def export(path: Path, forward: Any, arguments: tuple[Any, ...], keywords: Any = None, dynamic: Any = None) -> Path:
    import torch

    class Module(torch.nn.Module):
        pass

    Module.forward = forward
    torch.export.save(torch.export.export(Module().eval(), arguments, keywords, dynamic_shapes=dynamic), path)
    return path


@pytest.fixture
def loaded(users_code):
    def load(path: Path):
        chosen, source = format_named("torch"), Source(path.parent, path)
        return chosen.signature(source, Declaration()), chosen.load(source, Declaration(), RuntimeOptions(threads=1))

    return load


def test_several_inputs_by_name_and_a_tuple_of_outputs(tmp_path, loaded) -> None:
    import torch

    def forward(self, left, right=None, scale=None):
        return left * scale, left + right

    batch = torch.export.Dim("batch")
    path = export(
        tmp_path / "m.pt2",
        forward,
        (torch.ones(2, 3),),
        {"scale": torch.ones(1, dtype=torch.float32), "right": torch.ones(2, 3)},
        {"left": {0: batch}, "right": {0: batch}, "scale": None},
    )
    signature, model = loaded(path)
    assert {spec.name: spec.shape for spec in signature.inputs} == {"left": (-1, 3), "right": (-1, 3), "scale": (1,)}
    assert [spec.name for spec in signature.outputs] == ["output_0", "output_1"]
    left, right = np.arange(12, dtype=np.float32).reshape(4, 3), np.ones((4, 3), np.float32)
    found = model.run({"right": right, "scale": np.array([3.0], np.float32), "left": left})
    assert found["output_0"].tolist() == (left * 3).tolist()
    assert found["output_1"].tolist() == (left + right).tolist()
    model.unload()


@pytest.mark.parametrize(
    ("kind", "datatype"),
    [("bool", "BOOL"), ("uint8", "UINT8"), ("int8", "INT8"), ("int16", "INT16"), ("int32", "INT32"), ("int64", "INT64"),
     ("float16", "FP16"), ("bfloat16", "BF16"), ("float32", "FP32"), ("float64", "FP64")],
)  # fmt: skip
def test_every_datatype_goes_in_and_comes_out(tmp_path, loaded, kind, datatype) -> None:
    import torch

    dtype = getattr(torch, kind)

    def forward(self, x):
        return torch.flip(x, (1,))

    path = export(
        tmp_path / "m.pt2", forward, (torch.zeros(2, 2, dtype=dtype),), None, {"x": {0: torch.export.Dim("b")}}
    )
    signature, model = loaded(path)
    assert signature == Signature((TensorSpec("x", datatype, (-1, 2)),), (TensorSpec("output", datatype, (-1, 2)),))
    given = torch.tensor([[0, 1], [1, 0], [1, 1]]).to(dtype)
    array = given.view(torch.uint16).numpy() if kind == "bfloat16" else given.numpy()
    array.flags.writeable = False
    assert model.run({"x": array})["output"].tolist() == array[:, ::-1].tolist()


def test_a_batch_of_a_fixed_size_is_told(tmp_path, loaded) -> None:
    import torch

    signature, _ = loaded(export(tmp_path / "m.pt2", lambda self, x: x + 1, (torch.zeros(2, 2),)))
    assert not signature.batched
    assert signature.inputs[0].shape == (2, 2)


def test_a_network_answers_as_by_itself_to_the_last_bit(tmp_path, loaded) -> None:
    import torch

    torch.manual_seed(1)
    network = torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(16, 3)
    )
    network.eval()
    exported = torch.export.export(network, (torch.zeros(2, 8),), dynamic_shapes=({0: torch.export.Dim("b")},))
    torch.export.save(exported, tmp_path / "m.pt2")
    rows = np.random.default_rng(0).normal(size=(33, 8)).astype(np.float32)
    with torch.inference_mode():
        torch.set_num_threads(1)
        expected = exported.module()(torch.tensor(rows)).numpy()
    (found,) = loaded(tmp_path / "m.pt2")[1].run({next(iter(["input"])): rows}).values()
    assert found.tobytes() == expected.tobytes()


def test_it_is_taken_with_a_word_of_trust_only(tmp_path) -> None:
    import torch

    path = export(tmp_path / "m.pt2", lambda self, x: x + 1, (torch.zeros(2, 2),))
    with pytest.raises(SalverError, match="may unpickle") as raised:
        read_artifact(path)
    assert raised.value.code == "REFUSED_BY_POLICY"
    artifact = read_artifact(path, trust_code=True)
    assert (artifact.format, artifact.executes_code) == ("torch", True)


def test_outside_a_worker_no_program_is_opened_whoever_asks(tmp_path) -> None:
    import torch

    path = export(tmp_path / "m.pt2", lambda self, x: x + 1, (torch.zeros(2, 2),))
    chosen, source = format_named("torch"), Source(tmp_path, path)
    for act in (
        lambda: chosen.signature(source, Declaration()),
        lambda: chosen.load(source, Declaration(), RuntimeOptions()),
    ):
        with pytest.raises(SalverError, match="outside a worker"):
            act()


def test_pickles_called_pt2_are_refused_and_not_opened(tmp_path) -> None:
    import os

    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self) -> object:
            return os.open, (str(canary), os.O_CREAT | os.O_WRONLY)

    import torch

    (tmp_path / "m.pt2").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(SalverError, match="and is a pickle") as raised:
        read_artifact(tmp_path / "m.pt2", trust_code=True)
    assert raised.value.code == "INVALID_ARTIFACT"
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "m.pt2")
    with pytest.raises(SalverError) as raised:
        read_artifact(tmp_path / "m.pt2", trust_code=True)
    assert raised.value.code == "INVALID_ARTIFACT"
    assert not canary.exists()


def test_what_is_no_tensor_is_refused_by_name(tmp_path, loaded) -> None:
    import torch

    path = export(tmp_path / "m.pt2", lambda self, x: x * 1j, (torch.zeros(2, 2),))
    with pytest.raises(SalverError, match=r"output 'output' of the program is a torch\.complex64"):
        loaded(path)
