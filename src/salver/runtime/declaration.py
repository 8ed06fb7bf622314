"""`salver-model.toml`: what an artifact says about itself, as part of its digest."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError
from salver.protocol.formats import KINDS
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import StateSpec
from salver.protocol.tensor import MAX_RANK

__all__ = ["DECLARATION_FILE", "Declaration", "check_signature", "read_declaration"]

DECLARATION_FILE: Final = "salver-model.toml"
_LARGEST_DECLARATION_BYTES: Final = 1 << 20
_NO_STATES: Final = ("BYTES", "BF16")


class Declaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of `salver-model.toml`; every one is optional."""

    format: str = ""
    kind: str = "predict"
    entry: str = ""
    """"module:Class" of the `salver.Model` to run."""
    cost: str = ""
    """The input whose number of elements is a request's cost; rows when empty."""
    length: str = ""
    """The input whose rows differ in length: characters of text, or elements behind the batch dimension. Requests
    of similar length are run together, and their padded length is their cost."""
    preprocess: str = ""
    """"module:function", inputs to inputs, run in the worker before the model."""
    postprocess: str = ""
    """"module:function", outputs to outputs, run in the worker after the model."""
    streams: bool = False
    """Whether the `salver.Model` has a `stream`."""
    idempotent: bool = True
    """Whether a request may run again after the worker that had it died."""
    warm_up: bool | None = None
    """Whether rows that nobody sent are run before the version serves. When it does not say: where no
    code of the user's would run them, and where a profile tells what ordinary rows are."""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    states: tuple[StateSpec, ...] = ()
    """What a graph of kind `sequence` hands from one step of a sequence to the next."""
    metadata: dict[str, str] = {}


def read_declaration(directory: Path) -> Declaration:
    """Read the declaration of an artifact; an absent file is the default declaration.

    Raises INVALID_ARTIFACT naming the field that is wrong.
    """
    path = directory / DECLARATION_FILE
    if not path.is_file():
        return Declaration()
    if path.stat().st_size > _LARGEST_DECLARATION_BYTES:
        raise SalverError("INVALID_ARTIFACT", f"{DECLARATION_FILE} is larger than {_LARGEST_DECLARATION_BYTES} bytes")
    try:
        declaration = msgspec.toml.decode(path.read_bytes(), type=Declaration)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SalverError("INVALID_ARTIFACT", f"{DECLARATION_FILE}: {error}") from None
    if declaration.kind not in KINDS:
        raise SalverError(
            "INVALID_ARTIFACT", f"{DECLARATION_FILE}: kind is {declaration.kind!r}", f"use one of {', '.join(KINDS)}"
        )
    for setting in ("entry", "preprocess", "postprocess"):
        value = getattr(declaration, setting)
        module, colon, name = value.partition(":")
        if value and not (colon and name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
            raise SalverError(
                "INVALID_ARTIFACT", f"{DECLARATION_FILE}: {setting} is {value!r}", 'write it as "module:name"'
            )
    if declaration.inputs or declaration.outputs:
        check_signature(Signature(declaration.inputs, declaration.outputs))
    for setting in ("cost", "length"):
        named = getattr(declaration, setting)
        if named and named not in {spec.name for spec in declaration.inputs}:
            raise SalverError(
                "INVALID_ARTIFACT",
                f"{DECLARATION_FILE}: {setting} is {named!r}, which is no declared input",
                "name one of the inputs",
            )
    if declaration.cost and declaration.length:
        raise SalverError(
            "INVALID_ARTIFACT", f"{DECLARATION_FILE}: both cost and length are given", "length says what requests cost"
        )
    _check_states(declaration)
    if declaration.kind == "sequence":
        # A step that may have run must not run again: the state would be one step ahead.
        return msgspec.structs.replace(declaration, idempotent=False)
    if declaration.kind == "generate":
        return msgspec.structs.replace(declaration, streams=True)
    return declaration


def _check_states(declaration: Declaration) -> None:
    problem, states = "", declaration.states
    if states and declaration.kind != "sequence":
        problem = f'there are states, and kind is {declaration.kind!r}; only kind = "sequence" keeps any'
    elif declaration.streams and declaration.kind == "sequence":
        problem = "a step of a sequence is answered at once, so kind sequence and streams exclude each other"
    names = [name for state in states for name in (state.input, state.output)]
    for name in names:
        if names.count(name) > 1:
            problem = f"{name[:80]!r} is in more than one state"
    for state in states:
        found = _problem(TensorSpec(state.input, state.datatype, state.shape))
        if not found and state.datatype in _NO_STATES:
            found = f"has the datatype {state.datatype}, of which no state can be"
        if not found and state.shape.count(-1) > 1:
            found = f"has the shape {list(state.shape)}; only the batch dimension is free"
        if not found and not _holds(state.datatype, state.initial):
            found = f"cannot begin with {state.initial:g}, which is no {state.datatype}"
        if found:
            problem = f"state {state.input[:80]!r} {found}"
    if problem:
        raise SalverError("INVALID_ARTIFACT", f"{DECLARATION_FILE}: {problem}", "correct the file")


def _holds(datatype: str, value: float) -> bool:
    with np.errstate(all="ignore"):
        kept = np.array(value).astype(DATATYPES[datatype].dtype)
    # A fraction may lose digits, as in any tensor; a whole number must be itself.
    return bool(np.isfinite(kept)) if kept.dtype.kind == "f" else float(kept) == value


def check_signature(signature: Signature) -> Signature:
    """Return `signature`, or raise INVALID_ARTIFACT naming the tensor that makes no sense."""
    for side, specs in (("input", signature.inputs), ("output", signature.outputs)):
        if not specs:
            raise SalverError("INVALID_ARTIFACT", f"the signature has no {side}s", f"declare [[{side}s]]")
        names = [spec.name for spec in specs]
        for spec in specs:
            problem = _problem(spec) or ("is declared twice" if names.count(spec.name) > 1 else "")
            if problem:
                raise SalverError("INVALID_ARTIFACT", f"{side} {spec.name[:80]!r} {problem}")
    _check_pads(signature)
    return signature


def _check_pads(signature: Signature) -> None:
    padded = [spec for spec in signature.inputs if spec.pad is not None]
    for spec in padded:
        if spec.datatype == "BYTES" or -1 not in spec.shape[1:]:
            raise SalverError(
                "INVALID_ARTIFACT", f"input {spec.name!r} has a pad, but no free dimension of numbers to fill up"
            )
    for spec in signature.outputs:
        if spec.pad is not None or (padded and -1 in spec.shape[1:]):
            raise SalverError(
                "INVALID_ARTIFACT",
                f"output {spec.name!r} would be as long as the padded inputs, not as the request's",
                "pad inputs only where every output has fixed dimensions behind the batch",
            )


def _problem(spec: TensorSpec) -> str:
    if not spec.name or len(spec.name) > 256 or not spec.name.isprintable():
        return "needs a printable name of 1-256 characters"
    if spec.datatype not in DATATYPES:
        return f"has the unknown datatype {spec.datatype!r}; use one of {', '.join(DATATYPES)}"
    if len(spec.shape) > MAX_RANK:
        return f"has rank {len(spec.shape)}; at most {MAX_RANK} is possible"
    if any(dimension < -1 or dimension == 0 for dimension in spec.shape):
        return f"has the shape {list(spec.shape)}; dimensions are positive, or -1 for any size"
    return ""
