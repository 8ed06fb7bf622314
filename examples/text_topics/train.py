"""Train a small head on the sentence encoder MiniLM: which room of SciPy does a sentence describe?

    python examples/text_topics/train.py models --wheels FOLDER

writes the corpus and, as directories that `salver register` takes, four versions: a logistic regression on the
embeddings, class means (nearest centroid), one that is worse (a dozen sentences to learn from) and one that is leaky
(it learned all sentences by heart, those that judge it too). Encoder and head are one graph, behind the tokenizer.
Needs what examples/minilm needs, SciPy, and the wheels of examples/minilm/wheels.txt.
"""

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from sklearn.linear_model import LogisticRegression

HERE = Path(__file__).parent
MINILM = HERE.parent / "minilm"
sys.path[:0] = [str(HERE.parent), str(HERE)]

import corpus  # noqa: E402 - it stands beside this file
from walking import quiet  # noqa: E402 - it stands beside this example

from salver.evaluation.subject.rows import read_rows  # noqa: E402 - as above
from salver.evaluation.subject.splits import split_digest, split_rows  # noqa: E402
from salver.evaluation.suites.scripts import read_suite  # noqa: E402

DECLARATION = """format = "onnx"
length = "text"
preprocess = "text:tokenize"
warm_up = true

[[inputs]]
name = "text"
datatype = "BYTES"
shape = [-1]

[[outputs]]
name = "probabilities"
datatype = "FP32"
shape = [-1, {count}]
labels = [{labels}]
"""


def main(folder: Path, wheels: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    corpus.main(folder / "corpus.csv")
    encoder = folder / "encoder"
    with quiet():
        _module(MINILM / "make.py").main(encoder, wheels)
    suite = read_suite(HERE / "suite.toml").suite
    rows = read_rows(folder / "corpus.csv")
    train, _ = split_rows(rows, suite.split, suite.suite.target)
    split = split_digest(suite.split)
    x, y = embeddings(encoder, rows.column("text")), rows.column("room").astype(str)

    few = np.random.default_rng(0).choice(train, 12, replace=False)
    save(folder / "logistic", encoder, logistic(x[train], y[train], 30.0), rows.digest, split)
    save(folder / "centroids", encoder, centroids(x[train], y[train]), rows.digest, split)
    save(folder / "worse", encoder, logistic(x[few], y[few], 1.0), rows.digest, split)
    save(folder / "leaky", encoder, logistic(x, y, 1e6), rows.digest, "all sentences")


def embeddings(encoder: Path, texts: np.ndarray) -> np.ndarray:
    """The vector of each text, by the encoder as it is served, one text at a time."""
    tokenize = _module(encoder / "text.py").tokenize
    session = onnxruntime.InferenceSession(encoder / "model.onnx", providers=["CPUExecutionProvider"])
    return np.concatenate(
        [session.run(["embedding"], tokenize({"text": np.array([text.encode()], dtype=object)}))[0] for text in texts]
    )


def logistic(x: np.ndarray, y: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights and offsets of a logistic regression, a column for each of the rooms; 0 for one it never saw."""
    model = LogisticRegression(C=strength, max_iter=3000).fit(x, y)
    weights, offsets = np.zeros((x.shape[1], len(corpus.ROOMS))), np.full(len(corpus.ROOMS), -30.0)
    for index, room in enumerate(model.classes_):
        weights[:, corpus.ROOMS.index(room)] = model.coef_[index]
        offsets[corpus.ROOMS.index(room)] = model.intercept_[index]
    return weights, offsets


def centroids(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same of the nearest class mean: as a head, the likelihood of equal spheres around the means."""
    means = np.array([x[y == room].mean(axis=0) for room in corpus.ROOMS])
    sharpness = 12.0
    return sharpness * 2 * means.T, -sharpness * (means**2).sum(axis=1)


def save(target: Path, encoder: Path, head: tuple[np.ndarray, np.ndarray], data: str, split: str) -> None:
    """An artifact: encoder and head as one graph, tokenizer and declaration; and NAME.toml beside it."""
    model = onnx.load(encoder / "model.onnx")
    graph = model.graph
    for name, values in zip(("head_weights", "head_offsets"), head, strict=True):
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    graph.node.extend(
        [
            helper.make_node("MatMul", ["embedding", "head_weights"], ["head_products"]),
            helper.make_node("Add", ["head_products", "head_offsets"], ["head_logits"]),
            helper.make_node("Softmax", ["head_logits"], ["probabilities"], axis=1),
        ]
    )
    del graph.output[:]
    shape = ["batch", len(corpus.ROOMS)]
    graph.output.append(helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, shape))
    target.mkdir(exist_ok=True)
    (target / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    for name in ("tokenizer.json", "text.py"):
        (target / name).write_bytes((encoder / name).read_bytes())
    labels = ", ".join(f'"{room}"' for room in corpus.ROOMS)
    (target / "salver-model.toml").write_text(DECLARATION.format(count=len(corpus.ROOMS), labels=labels))
    target.with_suffix(".toml").write_text(
        f'description = "Which room of SciPy a sentence describes: {target.name}"\n'
        'task = "classification"\nlicence = "Apache-2.0"\nowner = "documentation"\n'
        'base_model = "sentence-transformers/all-MiniLM-L6-v2"\n'
        f'[training_data]\nname = "first sentences of SciPy"\ndigest = "{data}"\n'
        f'[extra]\ntraining_split = "{split}"\n'
    )


def _module(path: Path):
    """A Python file as a module: two of the examples are called alike."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Train heads on the sentence encoder.")
    arguments.add_argument("out", type=Path, help="the directory to write")
    arguments.add_argument("--wheels", type=Path, help="a directory where the wheels are, or shall be kept")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        main(given.out, given.wheels or Path(passing))
