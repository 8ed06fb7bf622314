"""SavedModel directories of TensorFlow, which become ONNX: there is no runtime of TensorFlow here.

The converter is tf2onnx. It runs in a child process, of this environment or of one that has TensorFlow,
because TensorFlow is large and does with the file what it wants.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

from salver.imports.imported import Imported
from salver.protocol.errors import SalverError
from salver.runtime.artifact import memory_to_read
from salver.runtime.child import Ending, run_child
from salver.runtime.environment import child_environment

__all__ = ["convert", "is_saved_model"]

_TIMEOUT_S: Final = 900.0
_ABSENT: Final = 9
_LONGEST_REASON: Final = 300
_VERSIONS: Final = re.compile(r"Using tensorflow=([\w.+-]+), onnx=[\w.+-]+, tf2onnx=([\w.+-]+)")
_RUN: Final = f"""
import importlib.util, runpy, sys
missing = [name for name in ("tensorflow", "tf2onnx") if importlib.util.find_spec(name) is None]
if missing:
    sys.stderr.write("no " + " and no ".join(missing))
    raise SystemExit({_ABSENT})
sys.argv[0] = "tf2onnx"
runpy.run_module("tf2onnx.convert", run_name="__main__")
"""


def is_saved_model(source: Path) -> bool:
    """Whether a directory is one of TensorFlow's."""
    return (source / "saved_model.pb").is_file()


def convert(source: Path, into: Path, *, python: Path | None = None, opset: int = 17) -> Imported:
    """Convert the SavedModel at `source` with the tf2onnx of `python`, by default of this environment.

    Raises UNSUPPORTED where the converter is not installed, INVALID_ARTIFACT with its last words where it fails.
    """
    if not is_saved_model(source):
        raise SalverError("INVALID_ARTIFACT", f"{source.name!r} is no SavedModel: it has no saved_model.pb")
    target = into / "model.onnx"
    interpreter = str(python or sys.executable)
    command = [interpreter, "-c", _RUN, "--saved-model", str(source), "--output", str(target), "--opset", str(opset)]
    environment = child_environment()
    if python is not None:
        environment.pop("PYTHONPATH", None)
    done = run_child(
        command,
        limit_s=_TIMEOUT_S,
        directory=Path(),
        environment=environment,
        variables={"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        memory_bytes=memory_to_read(source),
    )
    if done.ending is Ending.ABSENT:
        raise SalverError("INVALID_SETTING", f"the Python {interpreter!r} {done.how}", "check --converter")
    said = done.complaint.decode(errors="replace")
    if done.code == _ABSENT:
        raise SalverError(
            "UNSUPPORTED",
            f"SavedModels become ONNX by tf2onnx, and there is {said.strip()[-_LONGEST_REASON:]}",
            "python -m venv DIR && DIR/bin/pip install tensorflow-cpu tf2onnx, then add --converter DIR/bin/python",
        )
    if not done.well or not target.is_file():
        last = done.why.replace(str(source), source.name)
        raise SalverError("INVALID_ARTIFACT", f"tf2onnx cannot convert {source.name!r}: it {last[:_LONGEST_REASON]}")
    return Imported(into, "onnx", {"flavor": "tensorflow", "imported_from": source.name} | _versions(said))


def _versions(said: str) -> dict[str, str]:
    found = _VERSIONS.search(said)
    return {"tensorflow_version": found[1], "converter": f"tf2onnx {found[2]}"} if found else {}
