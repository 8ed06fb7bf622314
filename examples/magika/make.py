"""Make the artifact of magika, which tells what kind of file it is given, from the wheel that carries it.

    python examples/magika/make.py magika-model

writes a directory that `salver register` takes: the graph, its labels and thresholds, and what stands beside this
file. Needs `onnx`, and pip to download the wheel of wheels.txt (16 MB). With `--wheels FOLDER` it is kept there, and
taken from there the next time.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import onnx
from onnx import TensorProto, helper

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from wheels import wheels_of  # noqa: E402 - it stands beside this example

MODEL = "magika/models/standard_v3_3"


def main(out: Path, folder: Path) -> None:
    (wheel,) = wheels_of(HERE / "wheels.txt", folder)
    with wheel:
        graph = with_settled(onnx.load_model_from_string(wheel.read(f"{MODEL}/model.onnx")))
        rules = json.loads(wheel.read(f"{MODEL}/config.min.json"))
        kinds = json.loads(wheel.read("magika/config/content_types_kb.min.json"))
    if rules["mid_size"] or rules["use_inputs_at_offsets"]:
        sys.exit("this model looks into the middle of files, which files.py does not")
    rules["texts"] = [name for name, kind in kinds.items() if kind["is_text"]]
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.onnx").write_bytes(graph.SerializeToString(deterministic=True))
    (out / "rules.json").write_text(json.dumps(rules), encoding="utf-8")
    for name in ("files.py", "salver-model.toml"):
        shutil.copyfile(HERE / name, out / name)
    print(f"{out}: files to one of {len(rules['target_labels_space'])} labels")


def with_settled(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with an input `settled` that it hands through, from the function before it to the one behind it."""
    model.graph.node.append(helper.make_node("Identity", ["settled"], ["settled_label"]))
    for values, name in ((model.graph.input, "settled"), (model.graph.output, "settled_label")):
        values.append(helper.make_tensor_value_info(name, TensorProto.INT64, ["batch"]))
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Make the artifact of magika.")
    arguments.add_argument("out", type=Path, help="the directory to write")
    arguments.add_argument("--wheels", type=Path, help="a directory where the wheel is, or shall be kept")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        main(given.out, given.wheels or Path(passing))
