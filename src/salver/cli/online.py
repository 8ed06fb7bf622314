"""A server of its own for one version, asked over each of the ways that clients take."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from salver.protocol.errors import CATALOGUE, SalverError
from salver.protocol.tables import DeploymentSpec, VersionManifest

if TYPE_CHECKING:
    import httpx2
    import numpy as np

    from salver.client import Client
    from salver.evaluation.subject.given import OnlinePaths
    from salver.storage.home import Home

__all__ = ["Online", "online_of"]

_ENDPOINT: Final = "candidate"
_TIMEOUT_S: Final = 300.0


class Online:
    """The ways to one server: JSON and binary tensors over HTTP, and gRPC. Close it."""

    def __init__(self, url: str, grpc_url: str, specs: Mapping[str, Any]) -> None:
        import httpx2

        self._url, self._grpc_url, self._specs = url, grpc_url, specs
        self._http = httpx2.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=False)
        self._clients: dict[str, Client] = {}

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        for client in self._clients.values():
            client.close()

    def ask(self, path: str, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """See `salver.evaluation.subject.given.OnlinePaths`."""
        if path == "json":
            return self._ask_json(inputs)
        if path not in self._clients:
            from salver.client import Client

            url = self._url if path == "binary" else self._grpc_url
            self._clients[path] = Client(url, timeout_s=_TIMEOUT_S)
        found = self._clients[path].predict(_ENDPOINT, dict(inputs))
        return {name: found[name] for name in found}

    def _ask_json(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        import msgspec
        import numpy as np

        from salver.protocol.datatypes import DATATYPES

        document = {"inputs": [self._tensor(name, array) for name, array in inputs.items()]}
        answer = self._http.post(
            f"/v2/models/{_ENDPOINT}/infer",
            content=msgspec.json.encode(document),
            headers={"content-type": "application/json"},
        )
        said = msgspec.json.decode(answer.content, type=dict[str, Any])
        _raise_for(answer, said)
        outputs = {}
        for each in said["outputs"]:
            dtype = DATATYPES[each["datatype"]].dtype
            outputs[each["name"]] = np.array(each["data"], dtype=dtype).reshape(each["shape"])
        return outputs

    def _tensor(self, name: str, array: np.ndarray[Any, Any]) -> dict[str, Any]:
        import numpy as np

        datatype = self._specs[name].datatype
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise SalverError("INVALID_VALUE", "JSON has no NaN and no infinity", "ask in binary or over gRPC")
        values = array.reshape(-1).tolist()
        if datatype == "BYTES":
            values = [each.decode() if isinstance(each, bytes) else each for each in values]
        return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": values}


def _raise_for(answer: httpx2.Response, said: Mapping[str, Any]) -> None:
    if answer.status_code != 200:
        code = answer.headers.get("x-salver-error", "")
        raise SalverError(code if code in CATALOGUE else "INTERNAL", str(said.get("error", ""))[:300])


def online_of(home: Home) -> Callable[[VersionManifest], AbstractContextManager[OnlinePaths]]:
    """How to start a server with nothing but a version of `home`; it ends with the block."""

    @contextlib.contextmanager
    def started(manifest: VersionManifest) -> Iterator[OnlinePaths]:
        from salver.cli.checking import serving_alone
        from salver.control.seed import write_seed

        spec = DeploymentSpec(_ENDPOINT, manifest.model, manifest.version, generation=1)
        with tempfile.TemporaryDirectory(prefix="salver-online-") as folder:
            seeded = Path(folder) / "home"
            seeded.mkdir()
            write_seed(seeded, home, spec, manifest)
            with serving_alone(seeded, "--grpc", "0") as ready:
                if ready["failed"]:
                    raise SalverError("LOAD_FAILED", f"the server did not load it: {ready['failed'][0]}")
                specs = {each.name: each for each in manifest.signature.inputs}
                paths = Online(ready["http"], f"grpc://{ready['grpc']}", specs)
                with contextlib.closing(paths):
                    yield paths

    return started
