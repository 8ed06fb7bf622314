"""`salver record`: exchanges with an endpoint kept in a file, for contract tests."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from salver.cli.context import Context
from salver.cli.files import read_file
from salver.cli.trust import advising, trusted
from salver.protocol.errors import SalverError
from salver.protocol.names import check_name

if TYPE_CHECKING:
    import httpx2

__all__ = ["add_to"]

_MOST: Final = 100_000
_TIMEOUT_S: Final = 60.0


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("record", epilog="Example: salver record digits --input requests.jsonl --out traffic.jsonl")(record)


def record(
    context: typer.Context,
    endpoint: str = typer.Argument(help="The endpoint to ask."),
    input: Path = typer.Option(
        ..., help="File with a request (JSON) on each line, or with rows (npy, csv, parquet), of which each is one."
    ),
    out: Path = typer.Option(..., help="File that exchanges are added to, one on each line."),
    url: str | None = typer.Option(
        None, help="http://HOST:PORT of a server; by default the one that serves this home."
    ),
    token: str | None = typer.Option(None, envvar="SALVER_TOKEN", help="A token, where the server asks for one."),
    ca: Path | None = typer.Option(None, help="File with certificates to trust, in PEM."),
) -> None:
    """Ask an endpoint and keep what it answers. Refusals too: a [[contract]] of a suite replays them.

    What goes on, goes on: a server that is gone ends it, and what was recorded stays.
    """
    import httpx2

    here: Context = context.obj
    check_name(endpoint, "endpoint")
    where = url or here.serving().http or ""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    verify: ssl.SSLContext | bool = trusted(ca) or True
    answered = refused = 0
    with (
        advising(),
        httpx2.Client(headers=headers, verify=verify, timeout=_TIMEOUT_S, trust_env=False) as http,
        _opened(out) as file,
    ):
        for body in _bodies(input, where, endpoint, token, verify):
            line, was_answered = _exchange(http, where, endpoint, body)
            file.write(line + b"\n")
            file.flush()
            answered, refused = answered + was_answered, refused + (not was_answered)
    here.say(
        {"answered": answered, "refused": refused, "file": str(out)},
        f"recorded {answered} answers and {refused} refusals of {endpoint} in {out}",
    )


def _opened(path: Path) -> Any:
    try:
        return path.open("ab")
    except OSError as error:
        raise SalverError(
            "INVALID_PARAMETER", f"cannot write {str(path)!r}: {error.strerror}", "name another file"
        ) from None


def _exchange(http: httpx2.Client, url: str, endpoint: str, body: bytes) -> tuple[bytes, bool]:
    """One line of the file, and whether it was answered."""
    import httpx2
    import msgspec

    try:
        answer = http.post(
            f"{url.rstrip('/')}/v2/models/{endpoint}/infer", content=body, headers={"content-type": "application/json"}
        )
        said = msgspec.json.decode(answer.content, type=dict[str, Any])
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise SalverError("NOT_READY", f"{url} cannot be asked: {error}", "is `salver serve` running there?") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise SalverError("INTERNAL", f"{url} answered {answer.status_code} without JSON") from None
    exchange: dict[str, Any] = {"request": msgspec.Raw(body)}
    if answer.status_code == httpx2.codes.OK:
        return msgspec.json.encode(exchange | {"answer": said}), True
    code = answer.headers.get("x-salver-error", "INTERNAL")
    return msgspec.json.encode(exchange | {"error": code}), False


def _bodies(path: Path, url: str, endpoint: str, token: str | None, verify: ssl.SSLContext | bool) -> Iterator[bytes]:
    """The requests of a file, each one line of JSON."""
    if path.suffix in (".npy", ".csv", ".parquet"):
        yield from _of_rows(path, url, endpoint, token, verify)
        return
    import msgspec

    for number, line in enumerate(read_file(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SalverError("INVALID_JSON", f"{path.name!r}, line {number}: {error}", "one request a line") from None
        if number > _MOST:
            raise SalverError("INVALID_PARAMETER", f"{path.name!r} has more than {_MOST} lines", "record a sample")
        yield line


def _of_rows(path: Path, url: str, endpoint: str, token: str | None, verify: ssl.SSLContext | bool) -> Iterator[bytes]:
    """A request for each row of a table, for an endpoint with one input of numbers."""
    import msgspec

    from salver.client import Client
    from salver.protocol.datatypes import DATATYPES
    from salver.storage.tabular import read_table

    with Client(url, token=token, verify=verify) as client:
        inputs = client.metadata(endpoint).inputs
    if len(inputs) != 1 or inputs[0].datatype == "BYTES":
        raise SalverError(
            "MISSING_INPUT", f"rows of numbers do not say what endpoint {endpoint!r} takes", "give requests as JSON"
        )
    spec = inputs[0]
    table = read_table(path)
    for row in table[:_MOST].astype(DATATYPES[spec.datatype].dtype):
        shape = [1, *row.shape]
        tensor = {"name": spec.name, "shape": shape, "datatype": spec.datatype, "data": row.reshape(-1).tolist()}
        yield msgspec.json.encode({"inputs": [tensor]})
