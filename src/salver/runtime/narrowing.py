"""A signature read from a model, and what its declaration may add: labels and fixed sizes, no contradiction."""

from __future__ import annotations

from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.runtime.declaration import Declaration

__all__ = ["narrowed"]


def narrowed(derived: Signature, declaration: Declaration) -> Signature:
    """`derived` with what the declaration says more exactly; raises INVALID_ARTIFACT for a contradiction."""

    def side(found: tuple[TensorSpec, ...], declared: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        by_name = {spec.name: spec for spec in declared}
        for name in by_name.keys() - {spec.name for spec in found}:
            raise SalverError("INVALID_ARTIFACT", f"the declaration names {name!r}, which the model does not have")
        return tuple(_merge_one(spec, by_name.get(spec.name)) for spec in found)

    # Behind processing of its own, the artifact takes and gives what it declares.
    inputs = declaration.inputs if declaration.preprocess and declaration.inputs else None
    outputs = declaration.outputs if declaration.postprocess and declaration.outputs else None
    return Signature(
        inputs or side(derived.inputs, declaration.inputs), outputs or side(derived.outputs, declaration.outputs)
    )


def _merge_one(derived: TensorSpec, declared: TensorSpec | None) -> TensorSpec:
    if declared is None:
        return derived
    narrows = len(declared.shape) == len(derived.shape) and all(
        have in (-1, want) for want, have in zip(declared.shape, derived.shape, strict=True)
    )
    if declared.datatype != derived.datatype or not narrows:
        raise SalverError(
            "INVALID_ARTIFACT",
            f"{derived.name!r} is declared {declared.datatype} {list(declared.shape)}; "
            f"the model says {derived.datatype} {list(derived.shape)}",
        )
    return declared
