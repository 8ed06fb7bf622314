"""The administration of a running server, through its control listener."""

from __future__ import annotations

from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import httpx2
import msgspec

from salver.control.action import Action
from salver.control.administration import DeployRequest, Registered, ServerStatus, TokenRequest
from salver.control.occasions import WHY_HEADER, why_header
from salver.protocol.errors import CATALOGUE, SalverError
from salver.protocol.jobs import JobPage, JobView
from salver.protocol.tables import DeploymentSpec, TokenRecord, VersionManifest
from salver.registry.catalog import ModelSummary
from salver.registry.draft import VersionDraft
from salver.registry.isolations import IsolatedVersion
from salver.registry.webhooks import MintedWebhook, WebhookRecord, WebhookRequest
from salver.security.tokens import MintedToken

__all__ = ["RemoteAdministration"]

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
        headers = {"authorization": f"Bearer {token}"} | ({WHY_HEADER: why_header(why)} if why else {})
        self._http = httpx2.Client(
            base_url="http://localhost",
            transport=httpx2.HTTPTransport(uds=uds),
            headers=headers,
            timeout=_TIMEOUT_S,
        )
        self._is_alive = False

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _ask(self, method: str, path: str, kind: type[T], body: object = None) -> T:
        content = None if body is None else msgspec.json.encode(body)
        try:
            if not self._is_alive:
                self._http.get("/v2/health/live", timeout=_ALIVE_S)
                self._is_alive = True
            answer = self._http.request(method, path, content=content)
        except httpx2.HTTPError as error:
            raise SalverError(
                "CONTROL_UNAVAILABLE", f"the controller does not answer ({type(error).__name__})", "try again shortly"
            ) from error
        if answer.status_code >= 400:
            raise _error(answer)
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

    def isolated(self) -> tuple[IsolatedVersion, ...]:
        """See `Administration`."""
        return self._ask("GET", "/v1/isolated", tuple[IsolatedVersion, ...])

    def end_isolation(self, reference: str) -> IsolatedVersion:
        """See `Administration`."""
        return self._ask("DELETE", f"/v1/isolated/{quote(reference, safe='@')}", IsolatedVersion)

    def create_token(self, request: TokenRequest) -> MintedToken:
        """See `Administration`."""
        return self._ask("POST", "/v1/tokens", MintedToken, request)

    def tokens(self) -> tuple[TokenRecord, ...]:
        """See `Administration`."""
        return self._ask("GET", "/v1/tokens", tuple[TokenRecord, ...])

    def revoke_token(self, token_id: str) -> TokenRecord:
        """See `Administration`."""
        return self._ask("DELETE", f"/v1/tokens/{quote(token_id, safe='')}", TokenRecord)

    def jobs(self, endpoint: str | None, state: str | None, limit: int, after: str | None) -> JobPage:
        """See `Administration`."""
        asked = {"endpoint": endpoint, "state": state, "limit": limit, "after": after}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        return self._ask("GET", f"/v1/jobs?{query}", JobPage)

    def job(self, job_id: str) -> JobView:
        """See `Administration`."""
        return self._ask("GET", f"/v1/jobs/{quote(job_id, safe='')}", JobView)

    def cancel_job(self, job_id: str) -> JobView:
        """See `Administration`."""
        return self._ask("DELETE", f"/v1/jobs/{quote(job_id, safe='')}", JobView)

    def webhooks(self) -> tuple[WebhookRecord, ...]:
        """See `Administration`."""
        return self._ask("GET", "/v1/webhooks", tuple[WebhookRecord, ...])

    def create_webhook(self, request: WebhookRequest) -> MintedWebhook:
        """See `Administration`."""
        return self._ask("POST", "/v1/webhooks", MintedWebhook, request)

    def remove_webhook(self, name: str) -> WebhookRecord:
        """See `Administration`."""
        return self._ask("DELETE", f"/v1/webhooks/{quote(name, safe='')}", WebhookRecord)


def _error(answer: httpx2.Response) -> SalverError:
    try:
        body: dict[str, Any] = msgspec.json.decode(answer.content, type=dict[str, Any])
        code = body["code"]
        if code in CATALOGUE:
            return SalverError(code, body["message"], body["remedy"])
    except (msgspec.DecodeError, KeyError):
        pass
    return SalverError("CONTROL_UNAVAILABLE", f"the controller answered with status {answer.status_code}")
