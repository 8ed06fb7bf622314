"""Salver's side: the models, and the homes that serve them as users would."""

import contextlib
import os
import subprocess

import numpy as np
import setting
from catalog import OIP, Peer
from running import Address

# What the peers' model file answers, from the class that a Salver user would write.
NOTHING = """
import salver


class Nothing(salver.Model):
    inputs = (salver.TensorSpec("X", "FP32", (-1, 64)),)
    outputs = (salver.TensorSpec("first", "FP32", (-1,)),)

    def predict(self, inputs):
        return {"first": inputs["X"][:, 0]}
"""
SALVER = Peer(
    "salver",
    "Salver",
    "salver",
    "/v2/models/{model}/infer",
    OIP,
    0,
    "defaults but `--max-batch 64`; digits in the server process, the "
    "no-op class and the text model in 1 worker process",
)
INLINE = Peer("inline", "Salver, ONNX, no worker", "salver", "/v2/models/{model}/infer", OIP, 0, "")


class Models:
    """The artifacts in a work folder, and one registered home for each of Salver's entries."""

    def __init__(self, work, wanted):
        self.work = work
        self.rows = setting.make_digits(work)
        self.folders = {"digits": work, "noop": work}
        self.homes = {}
        if "digits" in wanted:
            profile = ["--profile", str(work / "train.npy")]
            self._home(SALVER, "digits", work / "digits.onnx", *profile)
        if "noop" in wanted:
            (work / "nothing").mkdir()
            (work / "nothing" / "model.py").write_text(NOTHING)
            self._home(SALVER, "noop", work / "nothing")
            self._home(INLINE, "noop", write_slice(work / "slice.onnx"))
        if "minilm" in wanted:
            import minilm

            self.folders["minilm"] = minilm.make_minilm(work)
            self._home(SALVER, "minilm", self.folders["minilm"])

    def _home(self, entry, model, artifact, *words):
        home = self.homes[entry.name, model] = self.work / f"home-{entry.name}-{model}"
        try:
            setting.salver(home, "register", model, str(artifact), *words)
            setting.salver(home, "deploy", model, "--max-batch", "64")
        except subprocess.CalledProcessError as problem:
            raise SystemExit(f"Salver cannot serve {model}: {problem.stderr.decode().strip()}") from None

    @contextlib.contextmanager
    def serving(self, entry, model):
        """Where a Salver serves `model`; its ready line comes when the model is warm."""
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        with contextlib.ExitStack() as stack:
            try:
                ready = stack.enter_context(setting.served(self.homes[entry.name, model]))
            except ValueError:
                raise SystemExit(f"Salver ended before it served {model}; `salver serve` tells why") from None
            yield Address(ready["http"] + entry.path.format(model=model), f"http://{ready['grpc']}")


def write_slice(path):
    """The no-op as a graph, for the row that shows the front end alone."""
    from onnx import TensorProto, checker, helper, save

    nodes = [helper.make_node("Gather", ["X", "zero"], ["first"], axis=1)]
    given = helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 64])
    found = helper.make_tensor_value_info("first", TensorProto.FLOAT, [None])
    zero = helper.make_tensor("zero", TensorProto.INT64, [], np.array([0], np.int64))
    model = helper.make_model(
        helper.make_graph(nodes, "noop", [given], [found], [zero]), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 9
    checker.check_model(model)
    save(model, path)
    return path
