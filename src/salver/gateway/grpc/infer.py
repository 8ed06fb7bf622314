"""The door for inference over gRPC: ModelInfer, the hot path, and ModelStreamInfer."""

from __future__ import annotations

import asyncio
import functools
from typing import Final, NamedTuple

from salver.gateway.chunks import Timing, open_chunks
from salver.gateway.contracts import Contracts, ask, headers_of, make_request, refuse_unwritten
from salver.gateway.doorway import WRITE_ASIDE_ELEMENTS, aside, write_aside
from salver.gateway.grpc.call import Call
from salver.gateway.grpc.streams import Stream
from salver.protocol.codecs.oip_grpc import DecodedInfer, GrpcEncoder, decode_infer
from salver.protocol.errors import SalverError
from salver.protocol.proto import message
from salver.protocol.request import Chunks, Request, Response
from salver.protocol.signature import SignatureCheck
from salver.routing.router import Router, Target

__all__ = ["GrpcInferDoor"]

_STREAMED: Final = message("inference.ModelStreamInferResponse")
_DECODE_ASIDE_BYTES: Final = 2**20
"""A larger message is read off the event loop."""
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
    endpoint: str | None = None
    """Of this message, if it named one: the messages of a stream may ask several."""

    def message(self) -> bytes:
        """The failure as an answer."""
        content = _STREAMED(error_message=str(self.error), infer_response={"id": self.id or ""})
        encoded: bytes = content.SerializeToString()
        return encoded


class _Opened(NamedTuple):
    """The answers to a message of a stream, as they come."""

    chunks: Chunks
    request: Request
    encoder: GrpcEncoder
    timing: Timing
    typed: bool


class GrpcInferDoor:
    """Turns messages into requests of the router, and answers back."""

    def __init__(self, router: Router, max_elements: int) -> None:
        self._contracts = Contracts(router, _Contract)
        self._max_elements = max_elements

    def open(self, call: Call) -> None:
        """ModelInfer: raises SalverError, or answers the call when the model has."""
        body, call.body = call.body, b""
        if len(body) > _DECODE_ASIDE_BYTES:
            aside(call, functools.partial(decode_infer, body, self._max_elements), self._ask)
        else:
            self._ask(call, decode_infer(body, self._max_elements))

    def _ask(self, call: Call, infer: DecodedInfer) -> None:
        contract = self._contracts.of(infer.model, infer.version)
        request = _request(call, infer, contract)
        call.pending = future = ask(contract.target, request)
        future.add_done_callback(functools.partial(_answered, call, request, contract.encoder, infer.typed))

    async def stream(self, stream: Stream) -> None:
        """ModelStreamInfer: answer each message, in their order; several are under way at a time.

        A version that streams answers a message several times.
        """
        call = stream.call
        raises = call.headers.get(_RAISES) == b"true"
        asked: asyncio.Queue[asyncio.Task[bytes | _Opened | _Failure] | _Failure | None] = asyncio.Queue()
        room = asyncio.Semaphore(call.lane.gateway.limits.pipelined)
        opened: set[Chunks] = set()

        async def read() -> None:
            try:
                async for body in stream.messages():
                    await room.acquire()
                    asked.put_nowait(tasks.create_task(self._answer(call, body, opened)))
            except SalverError as error:
                # Behind the answers to what came before.
                asked.put_nowait(_Failure(error, False, None))
            else:
                asked.put_nowait(None)

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(read())
                while (answer := await asked.get()) is not None:
                    given = answer if isinstance(answer, _Failure) else await answer
                    found: bytes | _Failure | None
                    if isinstance(given, _Opened):
                        found = await self._send_chunks(stream, given)
                        opened.discard(given.chunks)
                    else:
                        found = given
                    if isinstance(found, _Failure):
                        if raises or found.id is None:
                            call.endpoint = found.endpoint
                            call.refuse(found.error, counted=found.counted)
                        elif not found.counted:
                            call.lane.gateway.refused(found.endpoint, found.error)
                        found = found.message()
                    if found is None:
                        stream.settle()
                    else:
                        await stream.send(found)
                    room.release()
        finally:
            for chunks in opened:
                chunks.close()

    async def _send_chunks(self, stream: Stream, opened: _Opened) -> bytes | _Failure | None:
        """Send the answers of a version that streams; returns what comes last, if anything does."""
        chunks, request, encoder, timing, typed = opened
        counted = True
        try:
            async for response in chunks:
                counted = False
                timing.of(response)
                encoded = encoder.encode_streamed(request, response, typed=typed, final=False)
                counted = True
                await stream.send(encoded, more=True)
        except SalverError as error:
            return _Failure(error, counted, request.id or "", request.endpoint)
        except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
            fault = stream.call.lane.gateway.fault(error)
            return _Failure(fault, False, request.id or "", request.endpoint)
        finally:
            chunks.close()
        return encoder.encode_last(request, timing.of_all())

    async def _answer(self, call: Call, body: bytes, opened: set[Chunks]) -> bytes | _Opened | _Failure:
        """The answer to one message of a stream, which counts as in flight until then; never raises.

        Chunks that it opens are in `opened`, to be closed however the stream ends.
        """
        gateway, name, endpoint, counted, size = call.lane.gateway, "", None, False, len(body)
        gateway.inflight_bytes += size
        try:
            gateway.require_room()
            if size > _DECODE_ASIDE_BYTES:
                loop = asyncio.get_running_loop()
                infer = await loop.run_in_executor(None, decode_infer, body, self._max_elements)
            else:
                infer = decode_infer(body, self._max_elements)
            del body
            name = infer.id or ""
            contract = self._contracts.of(infer.model, infer.version)
            endpoint = contract.target.spec.endpoint
            request = _request(call, infer, contract)
            streams = contract.target.manifest.streams
            timing = Timing(call, request, streams=streams)
            if streams:
                chunks = open_chunks(contract.target, request)
                opened.add(chunks)
                return _Opened(chunks, request, contract.encoder, timing, infer.typed)
            counted = True
            response = await ask(contract.target, request)
            counted = False
            try:
                told = timing.of(response)
                return contract.encoder.encode_streamed(request, response, typed=infer.typed, timing=told)
            except Exception:
                response.unwritten()
                raise
        except SalverError as error:
            return _Failure(error, counted, name, endpoint)
        except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
            return _Failure(gateway.fault(error), False, name, endpoint)
        finally:
            gateway.inflight_bytes -= size


def _request(call: Call, infer: DecodedInfer, contract: _Contract) -> Request:
    call.endpoint = contract.target.spec.endpoint
    return make_request(
        call,
        contract.target,
        contract.check,
        infer.inputs,
        id=infer.id,
        outputs=infer.outputs,
        parameters=infer.parameters,
        # A stream as a whole has the time its client gives it; each of its messages is one request.
        received_s=call.lane.gateway.clock.monotonic_s() if call.route.streaming else None,
        longest_s=call.timeout_s,
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
    if typed and response.batch.elements > WRITE_ASIDE_ELEMENTS:
        write = functools.partial(encoder.encode, typed=True)
        write_aside(
            call, request, response, write, lambda encoded: call.reply(encoded, headers_of(call, request, response))
        )
        return
    try:
        encoded = encoder.encode(request, response, typed=typed)
    except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
        refuse_unwritten(call, request, response, error)
        return
    call.reply(encoded, headers_of(call, request, response))
