"""The administration of a running server, through its control listener."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import httpx2
import msgspec

from salver.control.action import Action
from salver.control.occasions import WHY_HEADER, why_header
from salver.protocol.errors import CATALOGUE, SalverError

__all__ = ["RemoteAdministration", "refusal_of"]

_TIMEOUT_S: Final = 150.0
_ALIVE_S: Final = 10.0
"""How long a controller that is being started or replaced is waited for."""
Asked = TypeVar("Asked", bound=msgspec.Struct)
Answer = TypeVar("Answer")


class RemoteAdministration:
    """See `Administration`. Raises CONTROL_UNAVAILABLE when the controller does not answer.

    Reaches the controller through its Unix socket `uds`, which only the owner of the home can
    open, so neither ports nor certificates matter. The socket outlives a controller: requests
    wait in it for the next one. `why` is the reason that the journal gets for what is changed.
    """

    def __init__(self, uds: str, token: str, why: str = "") -> None:
        self._headers = {WHY_HEADER: why_header(why)} if why else {}
        self._http = httpx2.Client(
            base_url="http://localhost",
            transport=httpx2.HTTPTransport(uds=uds),
            headers={"authorization": f"Bearer {token}"},
            timeout=_TIMEOUT_S,
        )
        self._is_alive = False

    @classmethod
    def through(cls, http: httpx2.Client, why: str = "") -> RemoteAdministration:
        """The administration at the other end of `http`, which somebody else made with its token, and closes."""
        made = cls.__new__(cls)
        made._http = http
        made._headers = {WHY_HEADER: why_header(why)} if why else {}
        made._is_alive = True
        return made

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def do(self, action: Action[Asked, Answer], asked: Asked) -> Answer:
        """See `Administration`."""
        path, body = action.write(asked)
        content = None if body is None else msgspec.json.encode(body)
        try:
            if not self._is_alive:
                self._http.get("/v2/health/live", timeout=_ALIVE_S)
                self._is_alive = True
            answer = self._http.request(action.method, path, content=content, headers=self._headers)
        except httpx2.HTTPError as error:
            raise SalverError(
                "CONTROL_UNAVAILABLE", f"the controller does not answer ({type(error).__name__})", "try again shortly"
            ) from error
        if answer.status_code >= 400:
            raise refusal_of(answer)
        return msgspec.json.decode(answer.content, type=action.answer)


def refusal_of(answer: httpx2.Response) -> SalverError:
    """What a controller has refused with; its body has been read."""
    code = answer.headers.get("x-salver-error", "")
    said = {"message": f"the controller answered with status {answer.status_code}", "remedy": ""}
    try:
        body: dict[str, Any] = msgspec.json.decode(answer.content, type=dict[str, Any])
        code, said = body["code"], {"message": body["message"], "remedy": body["remedy"]}
    except (msgspec.DecodeError, KeyError):
        pass  # no body, or that of a proxy
    after = answer.headers.get("retry-after", "")
    return SalverError(
        code if code in CATALOGUE else "CONTROL_UNAVAILABLE",
        **said,
        retry_after_s=float(after) if after.isascii() and after.isdigit() and len(after) < 6 else None,
    )
