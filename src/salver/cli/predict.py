"""`salver predict`."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import typer

from salver.cli.context import Context

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("predict", epilog="Example: salver predict digits --input rows.npy")(predict)


def predict(
    context: typer.Context,
    endpoint: str = typer.Argument(help="The endpoint to call."),
    input: str = typer.Option(
        "-", help="An Open Inference Protocol request (json), npy or csv; - reads standard input."
    ),
    url: str | None = typer.Option(None, help="A server elsewhere; by default the one that serves this home."),
    token: str | None = typer.Option(None, envvar="SALVER_TOKEN", help="Where the server asks for one."),
) -> None:
    """Send a request to an endpoint and print the answer."""
    import msgspec

    from salver.client import Client

    here: Context = context.obj
    where = url or here.serving().http or ""
    content = sys.stdin.buffer.read() if input == "-" else _read(Path(input))
    with Client(where, token=token) as client:
        if content.lstrip()[:1] == b"{":
            document: Any = client.infer_json(endpoint, content)
        else:
            found = client.predict(endpoint, _rows(client, endpoint, content, Path(input).suffix))
            outputs = {name: array.tolist() for name, array in found.items()}
            document = {"model_version": found.model_version, "outputs": _text(outputs), "warnings": found.warnings}
    here.say(document, msgspec.json.format(msgspec.json.encode(document), indent=1).decode())


def _read(path: Path) -> bytes:
    from salver.protocol.errors import SalverError

    try:
        return path.read_bytes()
    except OSError as error:
        raise SalverError("INVALID_ARTIFACT", f"cannot read {str(path)!r}: {error.strerror}") from None


def _rows(client: Any, endpoint: str, content: bytes, suffix: str) -> Any:
    """Rows of numbers in the shape of the endpoint's only input."""
    import tempfile

    import numpy as np

    from salver.storage.tabular import read_table

    if content[:6] == b"\x93NUMPY":
        return np.load(io.BytesIO(content), allow_pickle=False)
    with tempfile.NamedTemporaryFile(suffix=suffix if suffix == ".parquet" else ".csv") as file:
        file.write(content)
        file.flush()
        table = read_table(Path(file.name))
    shape = client.metadata(endpoint)["inputs"][0]["shape"]
    return table.reshape(len(table), *shape[1:]) if -1 not in shape[1:] else table


def _text(outputs: dict[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        return [plain(item) for item in value] if isinstance(value, list) else value

    return {name: plain(value) for name, value in outputs.items()}
