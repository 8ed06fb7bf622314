"""ONNX models on ONNX Runtime.

A data format: nothing in the file is executed as code. By default one thread computes and no
thread spins while it waits, because other replicas and the event loop share the processors.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

# ONNX Runtime reports its use over the network unless it is told not to before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

from salver.protocol.errors import SalverError
from salver.protocol.formats import OPTIMIZATIONS
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import RuntimeOptions
from salver.runtime.declaration import Declaration
from salver.runtime.formats import Source
from salver.runtime.formats.onnx_data import require_own_data
from salver.runtime.formats.onnx_outline import outlined
from salver.runtime.model import Arrays
from salver.runtime.narrowing import narrowed
from salver.runtime.states import without_states
from salver.storage.snapshot import write_all

__all__ = ["OnnxFormat"]

_TYPES: Final = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_LEVELS: Final = dict(
    zip(
        OPTIMIZATIONS,
        (
            ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
            ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
            ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
            ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
        ),
        strict=True,
    )
)
_LONGEST_REASON: Final = 300
_DIRECTORIES: Final = re.compile(r"(?<![\w.])/(?:[^\s/'\":]+/)*")
"""The directories of an absolute path."""
_PARSED_AT_ONCE_BYTES: Final = 2**20
"""Bytes of a model that are parsed in less than a millisecond."""
_BFLOAT16: Final = 16
"""ONNX's own number for bfloat16, which numpy does not know."""


class OnnxFormat:
    """ONNX files, alone or in a directory with external data beside them."""

    name = "onnx"

    def main_file(self, directory: Path) -> Path | None:
        """`model.onnx`, or the only `.onnx` file."""
        files = sorted(directory.glob("*.onnx"))
        named = directory / "model.onnx"
        return named if named in files else files[0] if len(files) == 1 else None

    def code_in(self, source: Source) -> str:
        """Nothing: custom operator libraries are not loaded."""
        del source
        return ""

    def signature(self, source: Source, declaration: Declaration) -> Signature:
        """Derived from the graph; a declaration may add labels and optional marks, not contradict it."""
        session = _unweighted(source)
        graph = Signature(
            tuple(_spec(node, "input") for node in session.get_inputs()),
            tuple(_spec(node, "output") for node in session.get_outputs()),
        )
        return narrowed(without_states(graph, declaration.states), declaration)

    def load(self, source: Source, declaration: Declaration, options: RuntimeOptions) -> OnnxModel:
        """A session of its own for each replica."""
        del declaration
        return OnnxModel(_session(source, options))


class OnnxModel:
    """One session of ONNX Runtime; releases the GIL while it computes."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session: ort.InferenceSession | None = session
        self._outputs = [node.name for node in session.get_outputs()]
        self._bfloat16 = {node.name for node in session.get_inputs() if node.type == "tensor(bfloat16)"}
        self._strings = {node.name for node in session.get_inputs() if node.type == "tensor(string)"}
        self._plain = not self._bfloat16 and not self._strings

    def run(self, inputs: Arrays) -> Arrays:
        """Answer a batch."""
        assert self._session is not None
        feed: dict[str, Any] = inputs if self._plain else {name: self._fed(name, inputs[name]) for name in inputs}
        return dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))

    def _fed(self, name: str, array: np.ndarray[Any, Any]) -> object:
        if name in self._strings:
            return np.array([element.decode() for element in array.reshape(-1)], dtype=object).reshape(array.shape)
        if name in self._bfloat16:
            return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16)
        return array

    def unload(self) -> None:
        """Free the session."""
        self._session = None


def _unweighted(source: Source) -> ort.InferenceSession:
    """A session that tells what the model takes, and is for nothing else."""
    require_own_data(source)
    options = RuntimeOptions(optimization="disabled")
    try:
        with outlined(source) as outline:
            return _session(outline, options)
    except SalverError:  # of the model, or of its outline: some operator may want to know a large tensor
        return _session(source, options)


def _session(source: Source, options: RuntimeOptions) -> ort.InferenceSession:
    if options.optimization not in _LEVELS:
        raise SalverError(
            "INVALID_SETTING", f"optimization is {options.optimization!r}", f"use one of {', '.join(_LEVELS)}"
        )
    missing = [provider for provider in options.providers if provider not in ort.get_available_providers()]
    if missing:
        raise SalverError(
            "INVALID_SETTING",
            f"execution provider {missing[0]!r} is not in this build of ONNX Runtime",
            f"use one of {', '.join(ort.get_available_providers())}",
        )
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.graph_optimization_level = _LEVELS[options.optimization]
    settings.log_severity_level = 4
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if options.pin and options.threads > 1:
        # One entry for each thread but the calling one; ONNX Runtime counts processors from 1.
        bound = [str(options.pin[i % len(options.pin)] + 1) for i in range(1, options.threads)]
        settings.add_session_config_entry("session.intra_op_thread_affinities", ";".join(bound))
    require_own_data(source)
    try:
        with _readable(source) as model:
            return ort.InferenceSession(model, settings, providers=list(options.providers))
    except Exception as error:  # ONNX Runtime raises a family of its own without a common parent
        raise SalverError(
            "INVALID_ARTIFACT", f"ONNX Runtime cannot load {source.main.name!r}: {_reason(error, source.directory)}"
        ) from error


@contextlib.contextmanager
def _readable(source: Source) -> Iterator[str | bytes]:
    """What ONNX Runtime reads the model from.

    It parses bytes under the interpreter lock, 50 to 100 ms for 80 MB in which the event loop stands
    still, and files without it. So larger ones become a file: in memory, and sealed, that it stays what was verified.
    """
    content = source.content
    if content is None:
        yield str(source.main)
    elif len(content) < _PARSED_AT_ONCE_BYTES:
        yield content
    else:
        descriptor = os.memfd_create("model.onnx", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            write_all(descriptor, content)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)


def _reason(error: Exception, directory: Path) -> str:
    """The first line of what ONNX Runtime says, bounded, with files named but no directories."""
    line = str(error).strip().partition("\n")[0].replace(f"{directory}{os.sep}", "")
    plain = "".join(letter for letter in _DIRECTORIES.sub("", line) if letter.isprintable())
    plain = plain.removeprefix("[ONNXRuntimeError] : ")
    if len(plain) > _LONGEST_REASON:  # by the signature of a function in the middle; what is wrong comes behind it
        plain = f"{plain[: _LONGEST_REASON // 3]} ... {plain[-_LONGEST_REASON // 2 :]}"
    return plain or type(error).__name__


def _spec(node: Any, side: str) -> TensorSpec:
    datatype = _TYPES.get(node.type)
    if datatype is None:
        raise SalverError(
            "INVALID_ARTIFACT",
            f"{side} {node.name!r} is a {node.type}, which is no tensor",
            "export plain tensors; with skl2onnx pass options={'zipmap': False}",
        )
    shape = tuple(size if isinstance(size, int) and size > 0 else -1 for size in node.shape)
    return TensorSpec(node.name, datatype, shape)
