"""PyTorch's exported programs: what `torch.export.save` writes, a `.pt2`.

Loading one may unpickle what is in the archive, and running it runs what PyTorch makes of its graph:
it is code, taken with an explicit word of trust only, and it lives in a worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import RuntimeOptions
from salver.runtime.declaration import Declaration
from salver.runtime.environment import require_users_code
from salver.runtime.formats import Source
from salver.runtime.model import Arrays
from salver.runtime.narrowing import narrowed
from salver.runtime.recognition import require_content

try:
    import torch
    import torch.utils._pytree as pytree
except ImportError as missing:
    raise SalverError(
        "UNSUPPORTED", "exported programs of PyTorch need torch", "pip install 'salver[torch]'"
    ) from missing

__all__ = ["TorchFormat"]

_DATATYPES: Final = {
    torch.bool: "BOOL",
    torch.uint8: "UINT8",
    torch.uint16: "UINT16",
    torch.uint32: "UINT32",
    torch.uint64: "UINT64",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.float16: "FP16",
    torch.bfloat16: "BF16",
    torch.float32: "FP32",
    torch.float64: "FP64",
}
_LONGEST_REASON: Final = 200


class TorchFormat:
    """One exported program; inputs are called as in its `forward`, outputs by the keys of the dict it returns."""

    name = "torch"

    def main_file(self, directory: Path) -> Path | None:
        """`model.pt2`, or the only `.pt2` file."""
        files = sorted(directory.glob("*.pt2"))
        named = directory / "model.pt2"
        return named if named in files else files[0] if len(files) == 1 else None

    def code_in(self, source: Source) -> str:
        """Always: what it holds is for PyTorch to say."""
        return f"{source.main.name} is a program for PyTorch, which may unpickle what is in it"

    def signature(self, source: Source, declaration: Declaration) -> Signature:
        """From what the program was exported with; a dynamic dimension is -1."""
        return narrowed(_Call(_program(source)).signature, declaration)

    def load(self, source: Source, declaration: Declaration, options: RuntimeOptions) -> TorchModel:
        """Load the program; so many threads compute."""
        del declaration
        program = _program(source)
        torch.set_num_threads(max(options.threads, 1))
        return TorchModel(program)


class TorchModel:
    """One exported program, ready to run."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self._call = _Call(program)
        self._module: torch.nn.Module | None = program.module()

    def run(self, inputs: Arrays) -> Arrays:
        """Answer a batch."""
        assert self._module is not None
        call = self._call
        given = [_tensor(inputs[spec.name], spec.datatype) for spec in call.signature.inputs]
        arguments, keywords = pytree.tree_unflatten(given, call.takes)
        with torch.inference_mode():
            found = self._module(*arguments, **keywords)
        leaves = pytree.tree_leaves(found)
        return {
            spec.name: _array(leaf, spec.datatype) for spec, leaf in zip(call.signature.outputs, leaves, strict=True)
        }

    def unload(self) -> None:
        """Free the program."""
        self._module = None


class _Call:
    """How a program is called: its signature, and what its arguments are put into."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        nodes = {node.name: node for node in program.graph.nodes}
        inputs, outputs = program.graph_signature.user_inputs, program.graph_signature.user_outputs
        spec = program.call_spec
        if spec.in_spec is None or spec.out_spec is None:
            raise SalverError("INVALID_ARTIFACT", "the program does not say how it is called", "export it anew")
        self.takes = spec.in_spec
        names = _output_names(spec.out_spec, len(outputs))
        self.signature = Signature(
            tuple(_spec(str(name), nodes, name, "input") for name in inputs),
            tuple(_spec(called, nodes, name, "output") for called, name in zip(names, outputs, strict=True)),
        )


def _program(source: Source) -> torch.export.ExportedProgram:
    require_users_code(f"program {source.main.name!r}")
    require_content("torch", source.main)
    try:
        return torch.export.load(source.main)
    except Exception as error:  # PyTorch raises whatever its parts raise
        reason = str(error).strip().partition("\n")[0].replace(str(source.directory), "")[:_LONGEST_REASON]
        raise SalverError(
            "INVALID_ARTIFACT",
            f"PyTorch cannot load {source.main.name!r}: {reason or type(error).__name__}",
            "write it with torch.export.save, by a version of PyTorch no newer than the one here",
        ) from error


def _output_names(spec: pytree.TreeSpec, count: int) -> Sequence[str]:
    """Keys of a dict of tensors; `output` for one alone, `output_0` and so on for several."""
    if spec.type is dict and len(spec.context) == count:
        return [str(key) for key in spec.context]
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]


def _spec(called: str, nodes: dict[str, Any], name: object, side: str) -> TensorSpec:
    value = nodes[name].meta.get("val") if isinstance(name, str) and name in nodes else None
    if not isinstance(value, torch.Tensor) or value.dtype not in _DATATYPES:
        found = f"a {value.dtype}" if isinstance(value, torch.Tensor) else "no tensor"
        raise SalverError(
            "INVALID_ARTIFACT", f"{side} {called!r} of the program is {found}", "export a forward of plain tensors only"
        )
    shape = tuple(size if isinstance(size, int) and size > 0 else -1 for size in value.shape)
    return TensorSpec(called, _DATATYPES[value.dtype], shape)


def _tensor(array: np.ndarray[Any, Any], datatype: str) -> torch.Tensor:
    # Arrays come read-only and belong to the request; a tensor may be written to.
    tensor = torch.from_numpy(array.copy())
    return tensor.view(torch.bfloat16) if datatype == "BF16" else tensor


def _array(tensor: torch.Tensor, datatype: str) -> np.ndarray[Any, Any]:
    plain = tensor.detach().cpu().contiguous()
    return np.array((plain.view(torch.uint16) if datatype == "BF16" else plain).numpy())
