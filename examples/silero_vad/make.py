"""Make the artifact of the voice detector silero-vad from the wheel that carries it.

    python examples/silero_vad/make.py silero-model

writes a directory that `salver register` takes: the graph, and what stands beside this file. Needs `onnx`, and pip to
download the wheel of wheels.txt (11 MB). With `--wheels FOLDER` it is kept there, and taken from there the next time.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import onnx
from onnx import TensorProto, helper

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from wheels import wheels_of  # noqa: E402 - it stands beside this example

GRAPH = "silero_vad/data/silero_vad.onnx"
RATE, CHUNK, CONTEXT = 16_000, 512, 64


def main(out: Path, folder: Path) -> None:
    (wheel,) = wheels_of(HERE / "wheels.txt", folder)
    with wheel:
        graph = with_context(onnx.load_model_from_string(wheel.read(GRAPH)))
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.onnx").write_bytes(graph.SerializeToString(deterministic=True))
    shutil.copyfile(HERE / "salver-model.toml", out / "salver-model.toml")
    print(f"{out}: {CHUNK} samples at {RATE} Hz to how likely they are speech")


def with_context(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with what surrounds it in the package: the end of the chunk before goes in front of each chunk.

    `chunk`, `state` and `context` in, `output`, `stateN` and `contextN` out; the sample rate is settled.
    """
    graph = model.graph
    before = [helper.make_node("Concat", ["context", "chunk"], ["input"], axis=1)]
    behind = [helper.make_node("Slice", ["chunk", "salver_from", "salver_to", "salver_axis"], ["contextN"])]
    nodes = [*before, *graph.node, *behind]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.input.extend(
        [tensor("chunk", "batch", CHUNK), tensor("state", 2, "batch", 128), tensor("context", "batch", CONTEXT)]
    )
    graph.output.extend(
        [tensor("output", "batch", 1), tensor("stateN", 2, "batch", 128), tensor("contextN", "batch", CONTEXT)]
    )
    graph.initializer.append(helper.make_tensor("sr", TensorProto.INT64, [], [RATE]))
    for name, value in (("from", CHUNK - CONTEXT), ("to", CHUNK), ("axis", 1)):
        graph.initializer.append(helper.make_tensor(f"salver_{name}", TensorProto.INT64, [1], [value]))
    onnx.checker.check_model(model)
    return model


def tensor(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Make the artifact of the voice detector silero-vad.")
    arguments.add_argument("out", type=Path, help="the directory to write")
    arguments.add_argument("--wheels", type=Path, help="a directory where the wheel is, or shall be kept")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        main(given.out, given.wheels or Path(passing))
