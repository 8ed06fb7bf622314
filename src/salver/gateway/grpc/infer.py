"""The door for inference over gRPC: ModelInfer, the hot path, and ModelStreamInfer."""

from __future__ import annotations

import asyncio
import functools
from typing import Final, NamedTuple

from salver.gateway.contracts import TIMING, Contracts, ask, read_wait_s, refuse_unwritten, server_timing
from salver.gateway.grpc.call import Call
from salver.gateway.grpc.streams import Stream
from salver.protocol.codecs.oip_grpc import DecodedInfer, GrpcEncoder, decode_infer
from salver.protocol.errors import SalverError
from salver.protocol.proto import message
from salver.protocol.request import Request, Response
from salver.protocol.signature import SignatureCheck
from salver.routing.router import Router, Target

__all__ = ["GrpcInferDoor"]

_LOST: Final = "the request met a fault of this server"
_STREAMED: Final = message("inference.ModelStreamInferResponse")
_RAISES: Final = b"triton_grpc_error"
"""With this header an error ends the stream as a gRPC status; without, it is one of the answers."""


class _Contract:
    """What this door prepares once for each version behind an endpoint."""

    __slots__ = ("check", "encoder", "target")

    def __init__(self, target: Target) -> None:
        spec, manifest = target.spec, target.manifest
        self.target = target
        self.check = SignatureCheck(manifest.signature)
        self.encoder = GrpcEncoder(spec.endpoint, manifest.model, manifest.version, self.check.outputs, spec.nonfinite)


class _Failure(NamedTuple):
    """What became of a message of a stream that is not answered as asked."""

    error: SalverError
    counted: bool
    """Whether the metrics have it already."""
    id: str | None
    """The request's own; None ends the stream, whatever the client asks for."""

    def message(self) -> bytes:
        """The failure as an answer."""
        content = _STREAMED(error_message=str(self.error), infer_response={"id": self.id or ""})
        encoded: bytes = content.SerializeToString()
        return encoded


class GrpcInferDoor:
    """Turns messages into requests of the router, and answers back."""

    def __init__(self, router: Router, max_elements: int) -> None:
        self._contracts = Contracts(router, _Contract)
        self._max_elements = max_elements

    def open(self, call: Call) -> None:
        """ModelInfer: raises SalverError, or answers the call when the model has."""
        infer = decode_infer(call.body, self._max_elements)
        call.body = b""
        contract = self._contracts.of(infer.model, infer.version)
        request = _request(call, infer, contract)
        call.pending = future = ask(contract.target, request)
        future.add_done_callback(functools.partial(_answered, call, request, contract.encoder, infer.typed))

    async def stream(self, stream: Stream) -> None:
        """ModelStreamInfer: answer each message, in their order; several are under way at a time."""
        call = stream.call
        raises = call.headers.get(_RAISES) == b"true"
        asked: asyncio.Queue[asyncio.Task[bytes | _Failure] | _Failure | None] = asyncio.Queue()
        room = asyncio.Semaphore(call.lane.gateway.limits.pipelined)

        async def read() -> None:
            try:
                async for body in stream.messages():
                    await room.acquire()
                    asked.put_nowait(tasks.create_task(self._answer(call, body)))
            except SalverError as error:
                # Behind the answers to what came before.
                asked.put_nowait(_Failure(error, False, None))
            else:
                asked.put_nowait(None)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read())
            while (answer := await asked.get()) is not None:
                found = answer if isinstance(answer, _Failure) else await answer
                if isinstance(found, _Failure):
                    if raises or found.id is None:
                        call.refuse(found.error, counted=found.counted)
                    elif not found.counted:
                        call.lane.gateway.refused(call.endpoint, found.error)
                    found = found.message()
                await stream.send(found)
                room.release()

    async def _answer(self, call: Call, body: bytes) -> bytes | _Failure:
        """The answer to one message of a stream, which counts as in flight until then; never raises."""
        gateway, name, counted, size = call.lane.gateway, "", False, len(body)
        gateway.inflight_bytes += size
        try:
            gateway.require_room()
            infer = decode_infer(body, self._max_elements)
            del body
            name = infer.id or ""
            contract = self._contracts.of(infer.model, infer.version)
            request = _request(call, infer, contract)
            counted = True
            response = await ask(contract.target, request)
            counted = False
            return contract.encoder.encode_streamed(request, response, typed=infer.typed)
        except SalverError as error:
            return _Failure(error, counted, name)
        except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
            gateway.fault(error)
            return _Failure(SalverError("INTERNAL", _LOST), False, name)
        finally:
            gateway.inflight_bytes -= size


def _request(call: Call, infer: DecodedInfer, contract: _Contract) -> Request:
    target = contract.target
    spec = target.spec
    call.endpoint = spec.endpoint
    rows = contract.check.rows(infer.inputs)
    if infer.outputs is not None:
        contract.check.require_outputs(infer.outputs)
    # A stream as a whole has the time its client gives it; each of its messages is one request.
    received_s = call.lane.gateway.clock.monotonic_s() if call.route.streaming else call.received_s
    parameters = infer.parameters
    wait_s = spec.deadline_s if parameters is None else read_wait_s(parameters, spec.deadline_s)
    return Request(
        spec.endpoint,
        infer.inputs,
        target.manifest.version,
        infer.id,
        infer.outputs,
        parameters,
        received_s,
        received_s + min(wait_s, call.timeout_s),
        rows,
        call.id,
    )


def _answered(
    call: Call, request: Request, encoder: GrpcEncoder, typed: bool, answer: asyncio.Future[Response]
) -> None:
    """The model has answered, or the request has failed on the way to it."""
    if answer.cancelled() or call.answered:
        return
    try:
        response = answer.result()
    except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
        # Whoever failed a request that had been accepted has counted it.
        call.fail(error, counted=True)
        return
    call.response = response
    try:
        encoded = encoder.encode(request, response, typed=typed)
    except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
        refuse_unwritten(call, request, response, error)
        return
    if request.parameters is not None and request.parameters.get(TIMING):
        call.reply(encoded, [(b"server-timing", server_timing(response, call.lane.gateway.clock, call.received_s))])
    else:
        call.reply(encoded)
