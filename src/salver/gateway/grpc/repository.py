"""RepositoryIndex, RepositoryModelLoad and RepositoryModelUnload, where the operator has asked for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import quote

import msgspec
from google.protobuf.json_format import ParseDict

from salver.gateway.grpc.call import Call, Method
from salver.gateway.grpc.oip import OIP_SERVICE, parse, types_of
from salver.gateway.repository import REPOSITORY_STRAY, ControlAnswer, Controller
from salver.protocol.errors import CATALOGUE, SalverError
from salver.security.access import Operation

__all__ = ["repository_methods"]

_HTTP_OK: Final = 200
Question = tuple[str, dict[str, Any]]
"""A path of the controller, and the JSON body it takes."""


def repository_methods(controller: Controller | None) -> Iterable[Method]:
    """The methods of the model repository extension, forwarded to the controller; without one refused."""
    if controller is None:
        names = ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload")
        return [Method(f"/{OIP_SERVICE}/{name}", Operation.PREDICT, _refuse) for name in names]
    return [
        _forwarded("RepositoryIndex", Operation.READ, controller, _index, _models),
        _forwarded("RepositoryModelLoad", Operation.DEPLOY, controller, _load, _nothing),
        _forwarded("RepositoryModelUnload", Operation.DEPLOY, controller, _unload, _nothing),
    ]


def _refuse(call: Call) -> None:
    del call
    raise SalverError("UNSUPPORTED", "the repository is not here", REPOSITORY_STRAY.remedy)


def _forwarded(
    name: str,
    operation: Operation,
    controller: Controller,
    ask: Callable[[Any], Question],
    read: Callable[[Any], dict[str, Any]],
) -> Method:
    request_type, response_type = types_of(OIP_SERVICE, name)

    async def answer(call: Call) -> None:
        try:
            path, body = ask(parse(request_type, call.body))
            content = _accepted(await controller(path, msgspec.json.encode(body), call))
            call.reply(ParseDict(read(content), response_type()).SerializeToString())
        except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
            call.fail(error)

    def open_(call: Call) -> None:
        call.pending = asyncio.ensure_future(answer(call))

    return Method(f"/{OIP_SERVICE}/{name}", operation, open_)


def _accepted(answer: ControlAnswer) -> Any:
    """The content of an answer; raises what the controller refused with."""
    content = msgspec.json.decode(answer.body) if answer.body else {}
    if answer.status == _HTTP_OK:
        return content
    code = answer.headers.get("x-salver-error", "")
    message = content.get("error", "") if isinstance(content, dict) else ""
    raise SalverError(code if code in CATALOGUE else "INTERNAL", message or "the controller refused")


def _index(request: Any) -> Question:
    return "/v2/repository/index", {"ready": True} if request.ready else {}


def _load(request: Any) -> Question:
    return f"/v2/repository/models/{_quoted(request.model_name)}/load", _parameters(request)


def _unload(request: Any) -> Question:
    return f"/v2/repository/models/{_quoted(request.model_name)}/unload", _parameters(request)


def _quoted(name: str) -> str:
    if not name:
        raise SalverError("INVALID_NAME", "the model_name is empty")
    return quote(name, safe="")


def _parameters(request: Any) -> dict[str, Any]:
    plain = {}
    for name, parameter in request.parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        value = getattr(parameter, choice) if choice else None
        # Bytes are files, which the controller refuses whatever is in them.
        plain[name] = "" if isinstance(value, bytes) else value
    return {"parameters": plain} if plain else {}


def _models(content: Any) -> dict[str, Any]:
    fields = ("name", "version", "state", "reason")
    return {"models": [{name: row[name] for name in fields if name in row} for row in content]}


def _nothing(content: Any) -> dict[str, Any]:
    del content
    return {}
