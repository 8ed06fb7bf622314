from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import RuntimeOptions, StateSpec
from salver.protocol.tensor import Tensor
from salver.runtime.artifact import read_artifact
from salver.runtime.loader import load_version
from salver.runtime.states import STEP_INPUT, keep_states, step_tensor, without_states
from salver.runtime.warmup import warm_up
from salver.testing import ManualClock, make_manifest

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))
TALL = StateSpec("s", "sN", "FP32", (3, -1, 2), initial=1.0)
"""The batch in the middle, as of an LSTM."""
COUNT = StateSpec("n", "nN", "INT64", (-1,))
DECLARED = """
kind = "sequence"
[[states]]
input = "s"
output = "sN"
datatype = "FP32"
shape = [-1, 2]
"""


class Graph:
    """Adds x to each of the three layers of `s` and counts; answers their sum."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.spoil = lambda outputs: outputs

    def run(self, inputs):
        self.rows.append(len(inputs["x"]))
        layers = inputs["s"] + inputs["x"][np.newaxis]
        return self.spoil({"y": layers.sum(axis=0), "sN": layers, "nN": inputs["n"] + 1})

    def unload(self) -> None:
        self.rows.clear()


def sequence(**changes):
    return make_manifest(kind="sequence", signature=SIGNATURE, states=(TALL, COUNT), **changes)


def run(keeper, *steps):
    """One batch of (session, step, value), each session at the place of its number; what is answered in each row."""
    orders = np.array([[session, session, step, False, -1] for session, step, _ in steps], np.int64)
    x = np.array([[value, -value] for *_, value in steps], np.float32)
    return keeper.run({"x": x, STEP_INPUT: orders})["y"][:, 0].tolist()


def test_the_states_of_a_batch_are_joined_along_their_own_axis_and_cut_apart_again() -> None:
    graph = Graph()
    keeper = keep_states(graph, sequence(), None, None)
    assert run(keeper, (1, 0, 1.0)) == [6]
    assert run(keeper, (2, 0, 10.0), (3, 0, 100.0)) == [33, 303]
    assert run(keeper, (3, 1, 1.0), (1, 1, 1.0), (4, 0, 0.0)) == [306, 9, 3]
    assert graph.rows == [1, 2, 3]
    assert {session: steps for session, steps, _ in keeper._kept.values()} == {1: 2, 2: 1, 3: 2, 4: 1}


def test_a_state_holds_no_more_memory_than_its_own() -> None:
    keeper = keep_states(Graph(), sequence(), None, None)
    run(keeper, *((session, 0, 1.0) for session in range(32)))
    for *_, parts in keeper._kept.values():
        assert [part.base is None for part in parts] == [True, True]


def test_outputs_hold_no_states_and_inputs_no_orders() -> None:
    graph = Graph()
    seen = []
    keeper = keep_states(graph, sequence(), lambda arrays: seen.append(sorted(arrays)) or arrays, None)
    orders = np.array([[1, 1, 0, 0, -1]])
    assert list(keeper.run({"x": np.ones((1, 2), np.float32), STEP_INPUT: orders})) == ["y"]
    assert seen == [["x"]]


def test_functions_of_the_artifact_run_before_and_behind() -> None:
    keeper = keep_states(Graph(), sequence(), lambda a: {"x": a["x"] * 10}, lambda a: {"y": a["y"] + 0.5})
    assert [run(keeper, (1, step, 1.0)) for step in range(2)] == [[33.5], [63.5]]


def test_the_end_of_a_session_frees_its_state_and_so_does_the_word_of_another() -> None:
    keeper = keep_states(Graph(), sequence(), None, None)
    run(keeper, (1, 0, 1.0), (2, 0, 1.0), (3, 0, 1.0))
    x = np.ones((1, 2), np.float32)
    keeper.run({"x": x, STEP_INPUT: np.array([[1, 1, 1, True, 2]])})
    assert keeper.states == 1
    keeper.unload()
    assert keeper.states == 0


@pytest.mark.parametrize(
    ("session", "step", "problem"),
    [(7, 1, "the state of session 7 is not here"), (1, 1, "session 1 has done 2 steps, not 1"), (1, 3, "not 3")],
)
def test_a_step_whose_state_is_not_the_one_before_is_refused_before_anything_runs(session, step, problem) -> None:
    graph = Graph()
    keeper = keep_states(graph, sequence(), None, None)
    run(keeper, (1, 0, 1.0))
    run(keeper, (1, 1, 1.0), (2, 0, 1.0))
    with pytest.raises(ValueError, match=problem):
        run(keeper, (2, 1, 1.0), (session, step, 1.0))
    assert graph.rows == [1, 2]
    assert run(keeper, (2, 1, 1.0)) == [9]


def test_a_session_takes_the_place_of_one_before_it_and_never_of_one_after_it() -> None:
    keeper = keep_states(Graph(), sequence(), None, None)

    def at_one_place(*steps: tuple[int, int, bool]) -> list[float]:
        orders = np.array([[7, session, step, ends, -1] for session, step, ends in steps], np.int64)
        return keeper.run({"x": np.ones((len(steps), 2), np.float32), STEP_INPUT: orders})["y"][:, 0].tolist()

    assert at_one_place((1, 0, False)) == [6]
    assert at_one_place((2, 0, False)) == [6]
    assert keeper.states == 1
    # Steps of the one before that come late, as far as the pool lets them.
    for late in [(1, 0, False), (1, 0, True)]:
        assert at_one_place(late) == [6]
        assert keeper._kept[7][0] > 1
        assert at_one_place((3, 0, False), late) == [6, 6]
        assert keeper._kept[7][0] > 1
        assert at_one_place(late, (4, 0, False)) == [6, 6]
    with pytest.raises(ValueError, match="the state of session 1 is not here"):
        at_one_place((1, 1, False))
    assert at_one_place((4, 1, False)) == [9]


def test_a_batch_that_raises_leaves_every_state_as_it_was() -> None:
    graph = Graph()
    keeper = keep_states(graph, sequence(), None, None)
    run(keeper, (1, 0, 1.0), (2, 0, 1.0))
    graph.spoil = lambda outputs: outputs | {"nN": outputs["nN"].astype(np.int32)}
    with pytest.raises(ValueError, match=r"state 'nN' is int32 \[2\], declared int64 \[2\]"):
        run(keeper, (1, 1, 1.0), (2, 1, 1.0))
    graph.spoil = lambda outputs: {"y": outputs["y"], "nN": outputs["nN"]}
    with pytest.raises(ValueError, match=r"state 'sN' is missing, declared float32 \[3, 1, 2\]"):
        run(keeper, (1, 1, 1.0))
    graph.spoil = lambda outputs: outputs
    assert run(keeper, (1, 1, 1.0), (2, 1, 2.0)) == [9, 12]


def test_rows_that_nobody_sent_begin_anew_and_leave_nothing() -> None:
    graph = Graph()
    keeper = keep_states(graph, sequence(), None, None)
    measured = warm_up(keeper, sequence(), 4, ManualClock())
    assert measured.problem == ""
    assert set(graph.rows) == {1, 2, 4}
    assert keeper.states == 0


def test_a_version_that_keeps_nothing_is_none_of_sequences() -> None:
    with pytest.raises(SalverError, match=r"arithmetic@1\.0\.0 is of kind sequence and keeps nothing"):
        keep_states(Graph(), make_manifest(kind="sequence"), None, None)


def test_a_class_must_leave_as_many_states_as_it_was_given() -> None:
    class Wrong(Graph):
        def step(self, inputs, states):
            states.pop()
            return {"y": inputs["x"]}

    keeper = keep_states(Wrong(), make_manifest(kind="sequence"), None, None)
    with pytest.raises(ValueError, match=r"step\(\) made 1 states of 2"):
        run(keeper, (1, 0, 1.0), (2, 0, 1.0))


def test_the_order_of_a_step_is_one_small_tensor() -> None:
    tensor = step_tensor(5, 2**40, 3, ends=True, vacated=-1)
    assert isinstance(tensor, Tensor)
    assert (tensor.datatype, tensor.numpy().tolist()) == ("INT64", [[5, 2**40, 3, 1, -1]])


# Against the graph.

GRAPH = Signature(
    (TensorSpec("x", "FP32", (-1, 2)), TensorSpec("s", "FP32", (3, -1, -1))),
    (TensorSpec("y", "FP32", (-1, 2)), TensorSpec("sN", "FP32", (-1, -1, -1))),
)
STATE = StateSpec("s", "sN", "FP32", (3, -1, 2))


def test_clients_see_a_graph_without_its_states() -> None:
    assert without_states(GRAPH, (STATE,)) == SIGNATURE
    assert without_states(GRAPH, ()) is GRAPH


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        (StateSpec("t", "sN", "FP32", (3, -1, 2)), "a state names 't', and the graph has no such input"),
        (StateSpec("s", "t", "FP32", (3, -1, 2)), "a state names 't', and the graph has no such output"),
        (StateSpec("s", "sN", "FP64", (3, -1, 2)), "state 's' is declared FP64 .3, -1, 2.; the graph says FP32"),
        (StateSpec("s", "sN", "FP32", (4, -1, 2)), "state 's' is declared FP32 .4, -1, 2."),
        (StateSpec("s", "sN", "FP32", (3, 5, 2)), "do not agree on a batch dimension"),
    ],
)
def test_a_state_that_contradicts_the_graph_is_refused(state, problem) -> None:
    with pytest.raises(SalverError, match=problem) as caught:
        without_states(GRAPH, (state,))
    assert caught.value.code == "INVALID_ARTIFACT"


def adding() -> bytes:
    """A graph whose state is the sum so far, which it also answers."""
    shape = ["batch", 2]
    tensors = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "s", "y", "sN")}
    nodes = [helper.make_node("Add", ["x", "s"], ["sN"]), helper.make_node("Identity", ["sN"], ["y"])]
    graph = helper.make_graph(nodes, "adding", [tensors["x"], tensors["s"]], [tensors["y"], tensors["sN"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def artifact(folder: Path, declared: str) -> Path:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(adding())
    (folder / "salver-model.toml").write_text(declared)
    return folder


def test_a_graph_with_states_is_read_and_loaded(tmp_path, store) -> None:
    found = read_artifact(artifact(tmp_path / "adding", DECLARED))
    assert found.signature == SIGNATURE
    assert found.declaration.idempotent is False
    files = {"model.onnx": adding(), "salver-model.toml": DECLARED}
    manifest = store.version(
        files,
        format="onnx",
        kind="sequence",
        idempotent=False,
        states=found.declaration.states,
        signature=SIGNATURE,
        trusts_code=False,
    )
    loaded = load_version(manifest, RuntimeOptions(), store.blobs, store.scratch)
    try:
        assert [run(loaded, (1, step, 1.0), (2, step, 5.0)) for step in range(3)] == [[1, 5], [2, 10], [3, 15]]
    finally:
        loaded.unload()


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        (DECLARED.replace('"sequence"', '"predict"'), "there are states, and kind is 'predict'"),
        ('kind = "sequence"', "nothing says what is kept"),
        (DECLARED + "initial = 1e60\n", "state 's' cannot begin with 1e.60, which is no FP32"),
        (DECLARED.replace("FP32", "BYTES"), "has the datatype BYTES, of which no state can be"),
        (DECLARED.replace("FP32", "FP31"), "has the unknown datatype"),
        (DECLARED.replace("[-1, 2]", "[-1, -1]"), "only the batch dimension is free"),
        (DECLARED.replace('"sN"', '"s"'), "'s' is in more than one state"),
        (DECLARED.replace('kind = "sequence"', 'kind = "sequence"\nstreams = true'), "exclude each other"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused(tmp_path, declared, problem) -> None:
    with pytest.raises(SalverError, match=problem) as caught:
        read_artifact(artifact(tmp_path / "adding", declared))
    assert caught.value.code == "INVALID_ARTIFACT"


CLASS = """
import salver
class One(salver.Model):
    inputs = [salver.TensorSpec("x", "FP32", (-1, 2))]
    outputs = [salver.TensorSpec("y", "FP32", (-1, 2))]
    def {method}: ...
"""


@pytest.mark.parametrize(
    ("method", "kind", "problem"),
    [
        ("predict(self, inputs)", "sequence", r"One has no step\(\), and kind is 'sequence'"),
        ("step(self, inputs, states)", "predict", r"One has a step\(\), and kind is 'predict'"),
        ("step(self, inputs, states)", "sequence", ""),
    ],
)
def test_a_class_has_steps_exactly_if_its_kind_is_sequence(tmp_path, method, kind, problem) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "model.py").write_text(CLASS.format(method=method))
    (folder / "salver-model.toml").write_text(f'kind = "{kind}"\n')
    if not problem:
        assert read_artifact(folder).signature == SIGNATURE
        return
    with pytest.raises(SalverError, match=problem):
        read_artifact(folder)


def test_states_are_of_graphs_only(tmp_path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "model.py").write_text(CLASS.format(method="step(self, inputs, states)"))
    (folder / "salver-model.toml").write_text(DECLARED)
    with pytest.raises(SalverError, match="there are states, and format 'python' has no tensors for them"):
        read_artifact(folder)
