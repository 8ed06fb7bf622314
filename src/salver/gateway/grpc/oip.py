"""The methods of the Open Inference Protocol apart from inference."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from google.protobuf.json_format import ParseDict

from salver.gateway.descriptions import Descriptions
from salver.gateway.grpc.call import Call, Method
from salver.gateway.grpc.infer import GrpcInferDoor
from salver.gateway.grpc.streams import streaming
from salver.protocol.errors import SalverError
from salver.protocol.proto import POOL, message
from salver.security.access import Operation

__all__ = ["OIP_SERVICE", "OipMethods", "oip_methods", "parse", "types_of", "unary"]

OIP_SERVICE: Final = "inference.GRPCInferenceService"


class OipMethods:
    """Answers from what the router and the counters know; nothing here waits."""

    def __init__(self, descriptions: Descriptions) -> None:
        self._descriptions = descriptions

    def server_live(self, call: Call, request: Any) -> dict[str, Any]:
        """The event loop turns."""
        del call, request
        return {"live": True}

    def server_ready(self, call: Call, request: Any) -> dict[str, Any]:
        """Every required endpoint has a healthy replica and the server is not draining."""
        del request
        return {"ready": self._descriptions.is_ready(draining=call.lane.gateway.draining)}

    def server_metadata(self, call: Call, request: Any) -> dict[str, Any]:
        """Who answers and what it can do."""
        del call, request
        return self._descriptions.server()

    def model_ready(self, call: Call, request: Any) -> dict[str, Any]:
        """Whether the endpoint, and the version if one is named, answers; as in Triton one not there does not."""
        try:
            ready = self._descriptions.model_is_ready(request.name, request.version or None)
        except SalverError as error:
            if error.code != "NOT_FOUND":
                raise
            return {"ready": False}
        call.endpoint = request.name
        return {"ready": ready}

    def model_metadata(self, call: Call, request: Any) -> dict[str, Any]:
        """Inputs and outputs of the version that an endpoint serves."""
        described = self._descriptions.model(request.name, request.version or None)
        call.endpoint = request.name
        return described

    def model_config(self, call: Call, request: Any) -> dict[str, Any]:
        """The deployment in the shape of Triton's model configuration."""
        config = self._descriptions.config(request.name, request.version or None)
        call.endpoint = request.name
        return {"config": config}

    def model_statistics(self, call: Call, request: Any) -> dict[str, Any]:
        """Counts and times since the server started, for one endpoint or all."""
        statistics = self._descriptions.statistics(request.name or None, request.version or None)
        call.endpoint = request.name or None
        return statistics

    def trace_setting(self, call: Call, request: Any) -> dict[str, Any]:
        """Read-only: there is no tracing to change here."""
        _refuse_change(request)
        settings = self._descriptions.trace_settings(request.model_name or None)
        call.endpoint = request.model_name or None
        return {
            "settings": {
                name: {"value": [value] if isinstance(value, str) else value} for name, value in settings.items()
            }
        }

    def log_settings(self, call: Call, request: Any) -> dict[str, Any]:
        """Read-only: what the server logs."""
        del call
        _refuse_change(request)
        kinds = {bool: "bool_param", int: "uint32_param", str: "string_param"}
        settings = self._descriptions.log_settings()
        return {"settings": {name: {kinds[type(value)]: value} for name, value in settings.items()}}


def _refuse_change(request: Any) -> None:
    if any(setting.ListFields() for setting in request.settings.values()):
        raise SalverError("UNSUPPORTED", "these settings are read-only", "configure the server where it is started")


def unary(
    name: str, operation: Operation | None, answer: Callable[[Call, Any], dict[str, Any]], service: str = OIP_SERVICE
) -> Method:
    """A method whose answer is made at once, in the names of its message's fields."""
    request_type, response_type = types_of(service, name)

    def open_(call: Call) -> None:
        call.reply(ParseDict(answer(call, parse(request_type, call.body)), response_type()).SerializeToString())

    return Method(f"/{service}/{name}", operation, open_)


def types_of(service: str, name: str) -> tuple[Any, Any]:
    """The classes of a method's messages."""
    described = POOL.FindServiceByName(service).methods_by_name[name]
    return message(described.input_type.full_name), message(described.output_type.full_name)


def parse(kind: Any, body: bytes) -> Any:
    """A message; raises SalverError for bytes that are none."""
    try:
        return kind.FromString(body)
    except Exception:  # noqa: BLE001 - protobuf's DecodeError, which differs between its implementations
        raise SalverError("BAD_MESSAGE", f"the message is no {kind.DESCRIPTOR.name}") from None


def oip_methods(methods: OipMethods, door: GrpcInferDoor) -> Iterable[Method]:
    """All methods of the service but those of the repository."""
    predict = Operation.PREDICT
    return [
        Method(f"/{OIP_SERVICE}/ModelInfer", predict, door.open),
        Method(f"/{OIP_SERVICE}/ModelStreamInfer", predict, streaming(door.stream), streaming=True),
        unary("ServerLive", None, methods.server_live),
        unary("ServerReady", None, methods.server_ready),
        unary("ServerMetadata", predict, methods.server_metadata),
        unary("ModelReady", predict, methods.model_ready),
        unary("ModelMetadata", predict, methods.model_metadata),
        unary("ModelConfig", predict, methods.model_config),
        unary("ModelStatistics", predict, methods.model_statistics),
        unary("TraceSetting", predict, methods.trace_setting),
        unary("LogSettings", predict, methods.log_settings),
    ]
