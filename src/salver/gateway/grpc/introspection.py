"""gRPC's own services: health and reflection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from google.protobuf.descriptor import FileDescriptor

from salver.gateway.descriptions import Descriptions
from salver.gateway.grpc.call import STATUS_NUMBERS, Call, Method
from salver.gateway.grpc.oip import parse, unary
from salver.gateway.grpc.streams import Stream, streaming
from salver.protocol.errors import SalverError
from salver.protocol.proto import POOL, SERVICES, message
from salver.security.access import Operation

__all__ = ["Health", "introspection_methods"]

_HEALTH: Final = "grpc.health.v1.Health"
_CHECK: Final = message("grpc.health.v1.HealthCheckRequest")
_HEALTH_ANSWER: Final = message("grpc.health.v1.HealthCheckResponse")
_REFLECTIONS: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""Their messages are the same on the wire."""
_ASKED: Final = message("grpc.reflection.v1.ServerReflectionRequest")
_TOLD: Final = message("grpc.reflection.v1.ServerReflectionResponse")
_WATCH_S: Final = 0.5


class Health:
    """grpc.health.v1: of the whole server, which has no name, its services, and each endpoint by its own."""

    def __init__(self, descriptions: Descriptions) -> None:
        self._descriptions = descriptions

    def check(self, call: Call, request: Any) -> dict[str, Any]:
        """The status now; NOT_FOUND for an unknown name, as the service's contract has it."""
        status = self._status(call, request.service)
        if status == "SERVICE_UNKNOWN":
            raise SalverError("NOT_FOUND", f"there is no service or endpoint {request.service[:140]!r}")
        return {"status": status}

    def _status(self, call: Call, service: str) -> str:
        draining = call.lane.gateway.draining
        if not service or service in SERVICES:
            healthy = self._descriptions.is_ready(draining=draining)
        elif service in self._descriptions.endpoints():
            healthy = self._descriptions.model_is_ready(service, None) and not draining
        else:
            return "SERVICE_UNKNOWN"
        return "SERVING" if healthy else "NOT_SERVING"

    async def watch(self, stream: Stream) -> None:
        """The status now and whenever it changes."""
        async for body in stream.messages():
            service = parse(_CHECK, body).service
            told = ""
            while True:
                status = self._status(stream.call, service)
                if status != told:
                    told = status
                    await stream.send(_HEALTH_ANSWER(status=status).SerializeToString())
                if stream.call.lane.gateway.draining:
                    return
                await asyncio.sleep(_WATCH_S)


async def reflect(stream: Stream) -> None:
    """Which services there are, and the files that define them."""
    async for body in stream.messages():
        asked = parse(_ASKED, body)
        told = _TOLD(valid_host=asked.host, original_request=asked)
        try:
            _tell(asked, told)
        except KeyError:
            told.error_response.error_code = STATUS_NUMBERS["NOT_FOUND"]
            told.error_response.error_message = "this server defines nothing of that name"
        await stream.send(told.SerializeToString())


def _tell(asked: Any, told: Any) -> None:
    question = asked.WhichOneof("message_request")
    if question == "list_services":
        for name in sorted({*SERVICES, *_REFLECTIONS}):
            told.list_services_response.service.add(name=name)
    elif question == "file_by_filename":
        _define(told, POOL.FindFileByName(asked.file_by_filename))
    elif question == "file_containing_symbol":
        _define(told, POOL.FindFileContainingSymbol(asked.file_containing_symbol))
    elif question == "all_extension_numbers_of_type":
        # There are no extensions, of any type there is.
        POOL.FindMessageTypeByName(asked.all_extension_numbers_of_type)
        told.all_extension_numbers_response.base_type_name = asked.all_extension_numbers_of_type
    else:
        raise KeyError(question)


def _define(told: Any, file: FileDescriptor) -> None:
    told.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)


def introspection_methods(health: Health) -> Iterable[Method]:
    """All methods of both."""
    return [
        unary("Check", None, health.check, _HEALTH),
        Method(f"/{_HEALTH}/Watch", None, streaming(health.watch), streaming=True),
        *(
            Method(f"/{service}/ServerReflectionInfo", Operation.PREDICT, streaming(reflect), streaming=True)
            for service in _REFLECTIONS
        ),
    ]
