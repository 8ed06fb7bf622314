"""`salver predict`."""

from __future__ import annotations

import contextlib
import io
import math
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from salver.cli.context import Context
from salver.protocol.errors import CATALOGUE, SalverError

if TYPE_CHECKING:
    import httpx2

    from salver.client import Client

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("predict", epilog="Example: salver predict digits --input rows.npy")(predict)


def predict(
    context: typer.Context,
    endpoint: str = typer.Argument(help="The endpoint to call."),
    input: str = typer.Option(
        "-",
        help="File with rows (npy, csv, parquet) or an Open Inference Protocol request (JSON); - is standard input.",
    ),
    url: str | None = typer.Option(
        None, help="http://HOST:PORT of a server; by default the one that serves this home."
    ),
    token: str | None = typer.Option(None, envvar="SALVER_TOKEN", help="A token, where the server asks for one."),
    ca: Path | None = typer.Option(None, help="File with certificates to trust, in PEM."),
) -> None:
    """Ask an endpoint for predictions. Sends rows of a file, or a request as it is, and prints the answer.

    More rows than the endpoint runs together go in several requests, and their answers come as one.
    """
    import msgspec

    from salver.client import Client

    here: Context = context.obj
    where = url or here.serving().http or ""
    content = sys.stdin.buffer.read() if input == "-" else _read(Path(input))
    trusted = _trusted(ca)
    with Client(where, token=token, verify=trusted) as client, _progress(here) as show:
        if content.lstrip()[:1] == b"{":
            document = _send_as_it_is(client, where, endpoint, content, token, trusted, show)
        else:
            rows = _rows(client, endpoint, content, Path(input).suffix)
            found = client.predict_all(endpoint, rows, on_progress=show)
            outputs = {name: _text(array.tolist()) for name, array in found.items()}
            document = {"model_version": found.model_version, "outputs": outputs, "warnings": found.warnings}
    here.say(document, msgspec.json.format(msgspec.json.encode(document), indent=1).decode())


@contextlib.contextmanager
def _progress(here: Context) -> Iterator[Callable[[int, int], None] | None]:
    """What is to be called with the rows answered and all rows: a bar for people, once there are parts to wait for."""
    if here.json or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("rows", total=None, visible=False)
        yield lambda done, rows: bar.update(task, completed=done, total=rows, visible=True)


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
    client: Client,
    url: str,
    endpoint: str,
    content: bytes,
    token: str | None,
    verify: ssl.SSLContext | bool,
    show: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """Post a request written by hand and return what the server said, unchanged unless it took several requests."""
    import httpx2
    import msgspec

    from salver.client.parts import cut_request, in_parts, join_answers

    headers = {"authorization": f"Bearer {token}"} if token else {}
    with httpx2.Client(
        headers=headers, verify=verify, timeout=None, trust_env=False
    ) as http:  # the server has deadlines
        try:
            return _post(http, url, endpoint, content)
        except SalverError as error:
            most = client.max_batch(endpoint) if error.code == "TOO_MANY_ROWS" else None
            if most is None:
                raise
        request = msgspec.json.decode(content, type=dict[str, Any])
        parts = in_parts(
            request["inputs"][0]["shape"][0],
            most,
            lambda start, stop: _post(http, url, endpoint, msgspec.json.encode(cut_request(request, start, stop))),
            show,
        )
        return join_answers(endpoint, parts)


def _post(http: httpx2.Client, url: str, endpoint: str, content: bytes) -> dict[str, Any]:
    import httpx2
    import msgspec

    from salver.protocol.names import check_name

    path = f"{url.rstrip('/')}/v2/models/{check_name(endpoint, 'endpoint')}/infer"
    try:
        answer = http.post(path, content=content, headers={"content-type": "application/json"})
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
