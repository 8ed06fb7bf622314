"""What is known of an artifact without opening it: its format, its kind, its limits.

The one table of formats. Every room reads it, so it imports nothing; what a format does is in
the module its `adapter` names, which is imported only where a version of it is read or loaded.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["FORMATS", "KINDS", "MAX_FILES", "OPTIMIZATIONS", "PROVIDERS", "FormatFacts", "is_always_code"]

KINDS: Final = ("predict", "generate", "sequence", "embed")
"""What a model can be for."""
MAX_FILES: Final = 10_000
"""Files of one artifact at most; a larger count is a wrong directory, not a model."""
OPTIMIZATIONS: Final = ("disabled", "basic", "extended", "all")
"""Levels of graph optimisation, from none."""

PROVIDERS: Final = tuple(
    f"{name}ExecutionProvider"
    for name in (
        *("CPU", "CUDA", "Tensorrt", "NvTensorRTRTX", "ROCM", "MIGraphX", "OpenVINO", "Dnnl", "VitisAI", "QNN"),
        *("Nnapi", "VSINPU", "Js", "CoreML", "ACL", "Dml", "Rknpu", "WebNN", "WebGpu", "Xnnpack", "CANN", "Azure"),
    )
)
"""Execution providers that some build of ONNX Runtime has; the one that serves may have fewer."""


class FormatFacts(NamedTuple):
    """One format: everything about it that can be said without its libraries."""

    name: str
    adapter: str
    """"module:Class" of its `salver.runtime.formats.Format`."""
    suffixes: tuple[str, ...]
    """What its files end with; opening the file decides."""
    platform: str
    """What clients of the Open Inference Protocol are told it runs on."""
    extra: str = ""
    """The extra of Salver that installs its libraries; empty when every installation has them."""
    loads_from_memory: bool = False
    """Whether an artifact of one file is loaded from bytes in memory; the others need a file."""
    has_providers: bool = False
    """Whether it computes by execution providers and optimises graphs, so that those settings mean anything."""
    has_states: bool = False
    """Whether its versions of kind `sequence` declare their states as tensors."""
    always_code: bool = False
    """Whether its artifacts are users' code by nature: no word of trust is asked for, and they only
    ever run in a worker."""
    shared_suffixes: tuple[str, ...] = ()
    """Those of its suffixes that much else has as well: of such files only what looks like the format counts."""
    reads_aside: bool = False
    """Whether its library may end the process on a damaged file, so that a child reads it before it is registered."""


_FORMATS: Final = (
    FormatFacts(
        "onnx",
        "salver.runtime.formats.onnx:OnnxFormat",
        (".onnx",),
        "onnxruntime_onnx",
        loads_from_memory=True,
        has_providers=True,
        has_states=True,
    ),
    FormatFacts(
        "sklearn",
        "salver.runtime.formats.sklearn:SklearnFormat",
        (".skops", ".joblib", ".pkl", ".pickle"),
        "sklearn_sklearn",
        extra="sklearn",
    ),
    FormatFacts("python", "salver.runtime.formats.python:PythonFormat", (".py",), "python", always_code=True),
    FormatFacts(
        "xgboost",
        "salver.runtime.formats.xgboost:XgboostFormat",
        (".ubj", ".xgb", ".json"),
        "xgboost",
        extra="xgboost",
        loads_from_memory=True,
        shared_suffixes=(".json",),
        reads_aside=True,
    ),
    FormatFacts(
        "lightgbm",
        "salver.runtime.formats.lightgbm:LightgbmFormat",
        (".lgb", ".txt"),
        "lightgbm",
        extra="lightgbm",
        loads_from_memory=True,
        shared_suffixes=(".txt",),
        reads_aside=True,
    ),
    FormatFacts("torch", "salver.runtime.formats.torch:TorchFormat", (".pt2",), "pytorch_export", extra="torch"),
)
FORMATS: Final = {facts.name: facts for facts in _FORMATS}
"""Every format by its name, in the order in which file names are asked."""


def is_always_code(format: str) -> bool:
    """Whether artifacts of this format are users' code by nature; of an unknown format, nothing is said."""
    facts = FORMATS.get(format)
    return facts is not None and facts.always_code
