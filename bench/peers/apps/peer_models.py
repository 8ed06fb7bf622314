"""The models as every peer runs them: one ONNX Runtime session with Salver's own settings, and a batch at a time.

Each peer imports this file in its own environment (numpy, onnxruntime, tokenizers), so no peer has a faster
model than another. An instance is what a user sends as one row: 64 numbers, or a text.
"""

import os
from pathlib import Path

import numpy as np

MAX_BATCH = 64


def load():
    """The model a peer is to serve; the harness says which in the environment."""
    return KINDS[os.environ["PEER_MODEL"]](Path(os.environ["PEER_FOLDER"]))


def open_session(path):
    """Salver's defaults: one thread inside an operator, no spinning."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


class Digits:
    """64 pixels to a label and ten probabilities."""

    input = ("X", "FP32", [64])
    outputs = (("label", "INT64", []), ("probabilities", "FP32", [10]))

    def __init__(self, folder):
        self.session = open_session(folder / "digits.onnx")
        self.names = [output.name for output in self.session.get_outputs()]

    def __call__(self, rows):
        values = self.session.run(self.names, {"X": np.asarray(rows, np.float32)})
        return dict(zip(("label", "probabilities"), values, strict=True))


class NoOp:
    """64 pixels to the first of them: a request with an answer that nobody computes."""

    input = ("X", "FP32", [64])
    outputs = (("first", "FP32", []),)

    def __init__(self, folder):
        pass

    def __call__(self, rows):
        return {"first": np.asarray(rows, np.float32)[:, 0]}


class MiniLM:
    """A text to 384 numbers: tokenized, padded to the longest of the batch, pooled in the graph."""

    input = ("text", "BYTES", [])
    outputs = (("embedding", "FP32", [384]),)

    def __init__(self, folder):
        from tokenizers import Tokenizer

        self.session = open_session(folder / "model.onnx")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))  # it pads and truncates, too

    def __call__(self, texts):
        found = self.tokenizer.encode_batch_fast([text.decode() if isinstance(text, bytes) else text for text in texts])
        ids = np.array([one.ids for one in found], np.int64)
        mask = np.array([one.attention_mask for one in found], np.int64)
        return {"embedding": self.session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})[0]}


KINDS = {"digits": Digits, "noop": NoOp, "minilm": MiniLM}


def answer_all(model, requests):
    """One batch of several requests, each a list of instances: their predictions, in order."""
    found = model([instance for request in requests for instance in request])
    columns = {name: values.tolist() for name, values in found.items()}
    answers, at = [], 0
    for request in requests:
        upto = at + len(request)
        answers.append({name: values[at:upto] for name, values in columns.items()})
        at = upto
    return answers
