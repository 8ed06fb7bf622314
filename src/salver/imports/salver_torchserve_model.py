"""The code of an artifact that was imported from an archive of TorchServe.

This file is copied into the artifact, and beside it lies what was in the archive. It calls the handler as
TorchServe does: `initialize(context)` once, `handle(data, context)` for each batch, where `data` holds one
`{"body": bytes}` for each request and as many answers come back.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import salver

__all__ = ["Archived", "Context"]


class Metrics:
    """Takes what handlers report of themselves, and drops it: Salver measures by itself."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("add_"):
            raise AttributeError(name)
        return lambda *_, **__: None


class Context:
    """TorchServe's context, as far as a handler without TorchServe can use it."""

    def __init__(self, directory: Path, manifest: dict[str, Any]) -> None:
        self.manifest = manifest
        self.model_name = manifest["model"].get("modelName", "")
        self.model_yaml_config: dict[str, Any] = {}
        self.system_properties = {
            "model_dir": str(directory),
            "gpu_id": None,
            "batch_size": 1,
            "server_name": "Salver",
            "server_version": salver.__version__,
            "limit_max_image_pixels": True,
        }
        self.metrics = Metrics()
        self.explain = False
        self.request_ids: dict[int, str] = {}
        self.request_processor: list[Any] = []

    def get_request_id(self, idx: int = 0) -> str:
        """The place of a request in its batch."""
        return self.request_ids.get(idx, "")

    def get_all_request_header(self, _idx: int) -> dict[str, str]:
        """None: headers do not come this far."""
        return {}

    def get_request_header(self, _idx: int, _key: str) -> None:
        """None, likewise."""

    def set_response_content_type(self, _idx: int, _value: str) -> None:
        """Dropped: results are bytes."""

    def set_response_header(self, _idx: int, _key: str, _value: str) -> None:
        """Dropped, likewise."""

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Raises BadInputError for a status that refuses the request; the batch is then run again in halves."""
        if code >= 400:
            raise salver.BadInputError(phrase or f"the model refused request {idx} with status {code}")


class Archived(salver.Model):
    """A handler of TorchServe: bodies in, results out, as bytes or as JSON."""

    inputs = (salver.TensorSpec("body", "BYTES", (-1,)),)
    outputs = (salver.TensorSpec("result", "BYTES", (-1,)),)

    def load(self, path: Path) -> None:
        """Import the handler and initialise it."""
        directory = path / "archive"
        manifest = json.loads((directory / "MAR-INF" / "MANIFEST.json").read_text())
        named, _, function = manifest["model"]["handler"].partition(":")
        sys.path.insert(0, str(directory))
        module = importlib.import_module(named.removesuffix(".py").replace("/", "."))
        self._context = Context(directory, manifest)
        self._handle = self._entry(module, function)

    def _entry(self, module: Any, function: str) -> Any:
        if function or callable(getattr(module, "handle", None)):
            entry = getattr(module, function or "handle")
            # TorchServe lets functions initialise themselves in a first call without data.
            entry(None, self._context)
            return entry
        classes = [
            each for each in vars(module).values() if inspect.isclass(each) and each.__module__ == module.__name__
        ]
        entries = [each for each in classes if callable(getattr(each, "handle", None))]
        if len(entries) != 1:
            raise TypeError(f"{module.__name__} has {len(entries)} classes with handle(); one is expected")
        handler: Any = entries[0]()
        handler.initialize(self._context)
        return handler.handle

    def predict(self, inputs: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Answer a batch."""
        bodies = inputs["body"].tolist()
        context = self._context
        context.request_ids = {at: str(at) for at in range(len(bodies))}
        context.request_processor = [SimpleNamespace(get_request_properties=dict) for _ in bodies]
        found = self._handle([{"body": bytearray(body)} for body in bodies], context)
        if not isinstance(found, list | tuple) or len(found) != len(bodies):
            raise TypeError(f"the handler gave no list of {len(bodies)} results")
        results = np.empty(len(bodies), object)
        results[:] = [_bytes(each) for each in found]
        return {"result": results}


def _bytes(result: Any) -> bytes:
    if isinstance(result, bytes | bytearray):
        return bytes(result)
    if isinstance(result, str):
        return result.encode()
    plain = result.tolist() if hasattr(result, "tolist") else result
    return json.dumps(plain, default=lambda each: each.tolist()).encode()
