"""Python classes: user code, always in a worker process, and refused anywhere else."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from typing import Any

from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature
from salver.protocol.tables import RuntimeOptions
from salver.runtime.blame import code_comes_from
from salver.runtime.chunks import mapped
from salver.runtime.declaration import DECLARATION_FILE, Declaration
from salver.runtime.environment import require_users_code
from salver.runtime.formats import Source
from salver.runtime.model import Arrays, Model

__all__ = ["PythonFormat", "import_attribute"]


class PythonFormat:
    """A `salver.Model` in a module of the artifact, named by `entry` or the only one there."""

    name = "python"

    def main_file(self, directory: Path) -> Path | None:
        """`model.py`, or the only Python file."""
        files = sorted(directory.glob("*.py"))
        named = directory / "model.py"
        return named if named in files else files[0] if len(files) == 1 else None

    def code_in(self, source: Source) -> str:
        """All of it."""
        return f"{source.main.name} is Python"

    def signature(self, source: Source, declaration: Declaration) -> Signature:
        """As declared in `salver-model.toml`, else as the class attributes `inputs` and `outputs`."""
        if declaration.inputs and declaration.outputs:
            if declaration.streams or declaration.kind == "sequence":
                # What would be missed when the version is loaded, said when it is registered.
                _require_answers(_model_class(source, declaration), declaration)
            return Signature(declaration.inputs, declaration.outputs)
        cls = _model_class(source, declaration)
        _require_answers(cls, declaration)
        if not cls.inputs or not cls.outputs:
            raise SalverError(
                "INVALID_ARTIFACT",
                f"{cls.__name__} declares no signature",
                "give the class `inputs` and `outputs`, or write salver-model.toml",
            )
        return Signature(tuple(cls.inputs), tuple(cls.outputs))

    def load(self, source: Source, declaration: Declaration, options: RuntimeOptions) -> PythonModel:
        """Import the class, construct it without arguments and call its `load`."""
        del options
        cls = _model_class(source, declaration)
        _require_answers(cls, declaration)
        model = cls()
        model.load(source.directory)
        return PythonModel(model)


class PythonModel:
    """An instance of a user's `Model`."""

    def __init__(self, model: Model) -> None:
        self._model = model
        cls = type(model)
        self.predicts = cls.stream is Model.stream or cls.predict is not Model.predict
        """False for one that only streams."""

    def run(self, inputs: Arrays) -> Arrays:
        """Answer a batch through the three steps of the model."""
        model = self._model
        return model.postprocess(model.predict(model.preprocess(inputs)))

    def stream(self, inputs: Arrays) -> Generator[Arrays, None, None]:
        """Answer one request bit by bit, through the same three steps."""
        model = self._model
        yield from mapped(model.stream(model.preprocess(inputs)), model.postprocess)

    def step(self, inputs: Arrays, states: list[Any]) -> Arrays:
        """Answer a batch of steps likewise; `states` holds the new ones afterwards."""
        model = self._model
        return model.postprocess(model.step(model.preprocess(inputs), states))

    def unload(self) -> None:
        """Nothing beyond garbage collection."""


def _model_class(source: Source, declaration: Declaration) -> type[Model]:
    if declaration.entry:
        found = import_attribute(source.directory, declaration.entry)
        if not (inspect.isclass(found) and issubclass(found, Model)):
            raise SalverError("INVALID_ARTIFACT", f"entry {declaration.entry!r} is no subclass of salver.Model")
        return found
    module = _import_module(source.directory, source.main.stem)
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Model) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise SalverError(
            "INVALID_ARTIFACT",
            f"{source.main.name} has {len(classes)} subclasses of salver.Model",
            'keep one, or name it with entry = "module:Class" in salver-model.toml',
        )
    return classes[0]


def _require_answers(cls: type[Model], declaration: Declaration) -> None:
    """Raise INVALID_ARTIFACT unless the class answers, and streams exactly if that is declared."""
    streams, steps = cls.stream is not Model.stream, cls.step is not Model.step
    if steps != (declaration.kind == "sequence"):
        raise SalverError(
            "INVALID_ARTIFACT",
            f"{cls.__name__} has {'a' if steps else 'no'} step(), and kind is {declaration.kind!r} "
            f"in {DECLARATION_FILE}",
            f'write kind = "sequence" into {DECLARATION_FILE}' if steps else "write step(), or choose another kind",
        )
    if not streams and not steps and cls.predict is Model.predict:
        raise SalverError("INVALID_ARTIFACT", f"{cls.__name__} answers nothing", "write predict() or stream()")
    if streams != declaration.streams:
        raise SalverError(
            "INVALID_ARTIFACT",
            f"{cls.__name__} has {'a' if streams else 'no'} stream(), and streams is "
            f"{'true' if declaration.streams else 'not true'} in {DECLARATION_FILE}",
            f"write streams = true into {DECLARATION_FILE}" if streams else "write stream(), or leave that out",
        )


def import_attribute(directory: Path, reference: str) -> Any:
    """Import "module:name" from `directory`; raises INVALID_ARTIFACT when it is not there.

    Raises REFUSED_BY_POLICY outside processes made for users' code; nothing is imported then.
    """
    module, _, name = reference.partition(":")
    imported = _import_module(directory, module)
    try:
        return getattr(imported, name)
    except AttributeError:
        raise SalverError("INVALID_ARTIFACT", f"module {module!r} of the artifact has no {name!r}") from None


def _import_module(directory: Path, name: str) -> ModuleType:
    require_users_code(f"module {name!r}")
    code_comes_from(directory)
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise SalverError(
            "INVALID_ARTIFACT",
            f"module {error.name!r}, which {name!r} needs, is not installed",
            "install it beside Salver, or put it into the artifact",
        ) from error
