"""`salver predict`."""

from __future__ import annotations

import contextlib
import io
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from salver.cli.context import Context
from salver.cli.files import read_given
from salver.cli.sample import sample_request
from salver.cli.trust import advising, trusted
from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import CATALOGUE, SalverError

if TYPE_CHECKING:
    import ssl

    import httpx2

    from salver.client import Client
    from salver.protocol.signature import TensorSpec

__all__ = ["add_to"]

_SAVED_ROWS = "write it with numpy.save(FILE, rows), rows being an array of numbers"


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
    verify = trusted(ca) or True
    given = _Given.read(input)
    with advising(), Client(where, token=token, verify=verify) as client, _progress(here) as show:
        if given.content.lstrip()[:1] == b"{":
            document = _send_as_it_is(client, where, endpoint, given.content, token, verify, show)
        else:
            document = _send_rows(client, endpoint, given, show)
    here.say(document, msgspec.json.format(msgspec.json.encode(document), indent=1).decode())


class _Given(NamedTuple):
    """What is to be sent, and what to call it in an error."""

    content: bytes
    called: str
    suffix: str

    @classmethod
    def read(cls, input: str) -> _Given:
        """A file, or standard input for "-"."""
        content, called = read_given(input)
        if not content.strip():
            raise SalverError("INVALID_ARTIFACT", f"{called} is empty", "give rows (npy, csv, parquet) or a request")
        return cls(content, called, "" if input == "-" else Path(input).suffix)


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

    from salver.client.address import is_certificate_error
    from salver.protocol.names import check_name

    path = f"{url.rstrip('/')}/v2/models/{check_name(endpoint, 'endpoint')}/infer"
    try:
        answer = http.post(path, content=content, headers={"content-type": "application/json"})
        document = msgspec.json.decode(answer.content, type=dict[str, Any])
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        if is_certificate_error(error):
            message = f"the certificate of {url} is not trusted: {error}"
            raise SalverError("REFUSED_BY_POLICY", message) from error
        raise SalverError("NOT_READY", f"{url} cannot be asked: {error}", "is `salver serve` running there?") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise SalverError("INTERNAL", f"{url} answered {answer.status_code} without JSON") from None
    if answer.status_code != httpx2.codes.OK:
        code = answer.headers.get("x-salver-error", "")
        message = str(document.get("error", f"status {answer.status_code}"))
        raise SalverError(code if code in CATALOGUE else "INTERNAL", message)
    return document


def _send_rows(client: Client, endpoint: str, given: _Given, show: Callable[[int, int], None] | None) -> dict[str, Any]:
    """Predict the rows of a file for the endpoint's only input; refused before they are read if it takes none."""
    spec = _only_input(client.metadata(endpoint).inputs, endpoint)
    rows = _rows(given, spec)
    try:
        found = client.predict_all(endpoint, rows, on_progress=show)
    except SalverError as error:
        if error.code != "INVALID_VALUE":
            raise
        dtype = DATATYPES[spec.datatype].dtype
        remedy = f"if the loss is meant, write the file anew: numpy.save(FILE, rows.astype(numpy.{dtype}))"
        raise SalverError(error.code, f"{given.called}: {error.message}", remedy) from None
    outputs = {name: _text(array.tolist()) for name, array in found.items()}
    return {"model_version": found.model_version, "outputs": outputs, "warnings": found.warnings}


def _only_input(inputs: Sequence[TensorSpec], endpoint: str) -> TensorSpec:
    """The input that rows of numbers are for; raises where there is none, with a request that would do."""
    takes_text = [spec for spec in inputs if spec.datatype == "BYTES"]
    if len(inputs) == 1 and not takes_text:
        return inputs[0]
    listed = ", ".join(f"{spec.name} {spec.datatype}" for spec in inputs)
    why = "which is text" if len(inputs) == 1 else "and rows do not say which of them they are for"
    sample = sample_request(inputs)
    raise SalverError(
        "WRONG_DATATYPE" if len(inputs) == 1 else "MISSING_INPUT",
        f"endpoint {endpoint!r} takes {listed}, {why}; a file of rows is numbers for one input",
        f"give a request as JSON instead, such as {sample}" if sample else "give a request as JSON instead",
    )


def _rows(given: _Given, spec: TensorSpec) -> Any:
    """Rows of numbers in the shape of an input."""
    import numpy as np

    from salver.storage.tabular import read_table

    if given.content[:6] == b"\x93NUMPY":
        try:
            return np.load(io.BytesIO(given.content), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise SalverError(
                "INVALID_ARTIFACT", f"{given.called} is no npy array of numbers: {error}", _SAVED_ROWS
            ) from None
    kind = ".parquet" if given.suffix == ".parquet" else ".csv"
    with tempfile.NamedTemporaryFile(prefix="input-", suffix=kind) as file:
        file.write(given.content)
        file.flush()
        table = read_table(Path(file.name), called=given.called)
    if kind == ".csv" and spec.datatype in ("FP32", "FP64"):
        # Text has no datatype: reading 0.1 as the nearest FP32 is reading, not converting.
        table = table.astype(np.float32 if spec.datatype == "FP32" else np.float64)
    rest = spec.shape[1:]
    fits = -1 not in rest and math.prod(rest) == table.shape[1]
    return table.reshape(len(table), *rest) if fits else table


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return [_text(item) for item in value] if isinstance(value, list) else value
