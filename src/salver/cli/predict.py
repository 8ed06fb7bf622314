"""`salver predict`."""

from __future__ import annotations

import io
import math
import ssl
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from salver.cli.context import Context
from salver.protocol.errors import CATALOGUE, SalverError

if TYPE_CHECKING:
    from salver.client import Client

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("predict", epilog="Example: salver predict digits --input rows.npy")(predict)


def predict(
    context: typer.Context,
    endpoint: str = typer.Argument(help="The endpoint to call."),
    input: str = typer.Option(
        "-", help="An Open Inference Protocol request (json), npy, csv or parquet; - reads standard input."
    ),
    url: str | None = typer.Option(None, help="A server elsewhere; by default the one that serves this home."),
    token: str | None = typer.Option(None, envvar="SALVER_TOKEN", help="Where the server asks for one."),
    ca: Path | None = typer.Option(None, help="Certificates to trust, in PEM."),
) -> None:
    """Send a request to an endpoint and print the answer."""
    import msgspec

    from salver.client import Client

    here: Context = context.obj
    where = url or here.serving().http or ""
    content = sys.stdin.buffer.read() if input == "-" else _read(Path(input))
    trusted = _trusted(ca)
    if content.lstrip()[:1] == b"{":
        document = _send_as_it_is(where, endpoint, content, token, trusted)
    else:
        with Client(where, token=token, verify=trusted) as client:
            found = client.predict(endpoint, _rows(client, endpoint, content, Path(input).suffix))
        outputs = {name: _text(array.tolist()) for name, array in found.items()}
        document = {"model_version": found.model_version, "outputs": outputs, "warnings": found.warnings}
    here.say(document, msgspec.json.format(msgspec.json.encode(document), indent=1).decode())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SalverError("INVALID_ARTIFACT", f"cannot read {str(path)!r}: {error.strerror}") from None


def _trusted(ca: Path | None) -> ssl.SSLContext | bool:
    if ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise SalverError("INVALID_SETTING", f"cannot trust {str(ca)!r}: {error.strerror or error}") from None


def _send_as_it_is(
    url: str, endpoint: str, content: bytes, token: str | None, verify: ssl.SSLContext | bool
) -> dict[str, Any]:
    """Post a request written by hand and return what the server said, unchanged."""
    import httpx2
    import msgspec

    from salver.protocol.names import check_name

    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx2.post(
            f"{url.rstrip('/')}/v2/models/{check_name(endpoint, 'endpoint')}/infer",
            content=content,
            headers=headers | {"content-type": "application/json"},
            verify=verify,
            timeout=None,  # the server has deadlines
            trust_env=False,
        )
        document = msgspec.json.decode(answer.content, type=dict[str, Any])
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise SalverError("NOT_READY", f"{url} cannot be asked: {error}", "is `salver serve` running there?") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise SalverError("INTERNAL", f"{url} answered {answer.status_code} without JSON") from None
    if answer.status_code != httpx2.codes.OK:
        code = answer.headers.get("x-salver-error", "")
        message = str(document.get("error", f"status {answer.status_code}"))
        raise SalverError(code if code in CATALOGUE else "INTERNAL", message)
    return document


def _rows(client: Client, endpoint: str, content: bytes, suffix: str) -> Any:
    """Rows of numbers in the shape of the endpoint's only input."""
    import numpy as np

    from salver.storage.tabular import read_table

    if content[:6] == b"\x93NUMPY":
        try:
            return np.load(io.BytesIO(content), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise SalverError("INVALID_ARTIFACT", f"the input is no npy array of numbers: {error}") from None
    kind = ".parquet" if suffix == ".parquet" else ".csv"
    with tempfile.NamedTemporaryFile(prefix="input-", suffix=kind) as file:
        file.write(content)
        file.flush()
        table = read_table(Path(file.name))
    first = client.metadata(endpoint).inputs[0]
    if kind == ".csv" and first.datatype in ("FP32", "FP64"):
        # Text has no datatype: reading 0.1 as the nearest FP32 is reading, not converting.
        table = table.astype(np.float32 if first.datatype == "FP32" else np.float64)
    rest = first.shape[1:]
    fits = -1 not in rest and math.prod(rest) == table.shape[1]
    return table.reshape(len(table), *rest) if fits else table


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return [_text(item) for item in value] if isinstance(value, list) else value
