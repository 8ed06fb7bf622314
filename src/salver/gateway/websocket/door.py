"""The route that turns a connection into a conversation."""

from __future__ import annotations

from typing import Final

from salver.gateway.exchange import Exchange
from salver.gateway.infer import InferDoor
from salver.gateway.routes import HttpRoute
from salver.gateway.websocket.conversation import Conversation
from salver.gateway.websocket.handshake import accept_head
from salver.security.access import Operation

__all__ = ["WebSocketDoor", "websocket_routes"]

_SWITCHING: Final = 101


class WebSocketDoor:
    """Answers `GET /v2/models/{model}/ws`; `origins` are those whose pages may, a comma between two."""

    def __init__(self, infer: InferDoor, max_elements: int, origins: str) -> None:
        self._infer = infer
        self._max_elements = max_elements
        self._origins = frozenset(each.strip().lower() for each in origins.split(",") if each.strip())

    def open(self, exchange: Exchange) -> None:
        """Take the connection over; raises SalverError for what is no handshake, or not for everybody."""
        # Only servers that are asked for it pay for the library.
        from salver.gateway.websocket.lane import WebSocketLane  # noqa: PLC0415

        lane, gateway = exchange.lane, exchange.lane.gateway
        head = accept_head(exchange, self._origins, encrypted=lane.is_encrypted)
        # That there is nobody to talk to is better said in HTTP.
        self._infer.contract_of(exchange)
        if gateway.access.takes(_SWITCHING):
            gateway.observe(exchange, _SWITCHING)
        socket = WebSocketLane(gateway)
        socket.talk = Conversation(socket, exchange, self._infer, self._max_elements)
        exchange.answered = True
        lane.hand_over(exchange, head, socket)


def websocket_routes(door: WebSocketDoor) -> list[HttpRoute]:
    """All routes of this door."""
    summary = "A conversation of inferences over WebSocket"
    return [
        HttpRoute("GET", f"/v2/models/{{model}}{at}/ws", Operation.PREDICT, door.open, summary, upgrades=True)
        for at in ("", "/versions/{version}")
    ]
