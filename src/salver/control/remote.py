"""The administration of a running server, through its control listener."""

from __future__ import annotations

from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx2
import msgspec

from salver.control.action import Action
from salver.control.administration import DeployRequest, Registered, ServerStatus
from salver.control.occasions import WHY_HEADER, why_header
from salver.protocol.errors import CATALOGUE, SalverError
from salver.protocol.tables import DeploymentSpec, VersionManifest
from salver.registry.catalog import ModelSummary
from salver.registry.draft import VersionDraft

__all__ = ["RemoteAdministration", "refusal_of"]

_TIMEOUT_S: Final = 150.0
_ALIVE_S: Final = 10.0
"""How long a controller that is being started or replaced is waited for."""
T = TypeVar("T")
Asked = TypeVar("Asked", bound=msgspec.Struct)


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

    def _ask(self, method: str, path: str, kind: type[T], body: object = None) -> T:
        content = None if body is None else msgspec.json.encode(body)
        try:
            if not self._is_alive:
                self._http.get("/v2/health/live", timeout=_ALIVE_S)
                self._is_alive = True
            answer = self._http.request(method, path, content=content, headers=self._headers)
        except httpx2.HTTPError as error:
            raise SalverError(
                "CONTROL_UNAVAILABLE", f"the controller does not answer ({type(error).__name__})", "try again shortly"
            ) from error
        if answer.status_code >= 400:
            raise refusal_of(answer)
        return msgspec.json.decode(answer.content, type=kind)

    def do(self, action: Action[Asked, T], asked: Asked) -> T:
        """See `Administration`."""
        path, body = action.write(asked)
        return self._ask(action.method, path, action.answer, body)

    def register(self, draft: VersionDraft) -> Registered:
        """See `Administration`."""
        return self._ask("POST", "/v1/versions", Registered, draft)

    def models(self) -> tuple[ModelSummary, ...]:
        """See `Administration`."""
        return self._ask("GET", "/v1/models", tuple[ModelSummary, ...])

    def versions(self, model: str) -> tuple[VersionManifest, ...]:
        """See `Administration`."""
        return self._ask("GET", f"/v1/models/{quote(model, safe='')}", tuple[VersionManifest, ...])

    def deploy(self, request: DeployRequest) -> DeploymentSpec:
        """See `Administration`."""
        return self._ask("POST", "/v1/deployments", DeploymentSpec, request)

    def undeploy(self, endpoint: str, if_generation: int | None = None) -> DeploymentSpec:
        """See `Administration`."""
        query = "" if if_generation is None else f"?if_generation={if_generation}"
        return self._ask("DELETE", f"/v1/deployments/{quote(endpoint, safe='')}{query}", DeploymentSpec)

    def status(self) -> ServerStatus:
        """See `Administration`."""
        return self._ask("GET", "/v1/status", ServerStatus)


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
