"""Which endpoint answers where a protocol's paths name no model."""

from __future__ import annotations

from typing import Final

from salver.gateway.exchange import Exchange
from salver.protocol.errors import SalverError
from salver.routing.router import Router

__all__ = ["EndpointChoice"]

_HEADER: Final = b"x-salver-endpoint"
_TARGET_MODEL: Final = b"x-amzn-sagemaker-target-model"
_SHOWN: Final = 10


class EndpointChoice:
    """The endpoint a request names in a header, else the one that is set, else the only one there is."""

    def __init__(self, router: Router, default: str) -> None:
        self._router = router
        self._default = default

    def of(self, exchange: Exchange) -> str:
        """The endpoint for a request; whether it is there is for the router to say.

        Raises INVALID_PARAMETER naming the endpoints where there are several and none is chosen.
        """
        if _HEADER in exchange.headers:
            return exchange.headers[_HEADER].decode("latin-1")
        if _TARGET_MODEL in exchange.headers:
            # The client of a SageMaker endpoint names an archive below a prefix.
            return exchange.headers[_TARGET_MODEL].decode("latin-1").removeprefix("/").removesuffix(".tar.gz")
        if self._default:
            return self._default
        names = self._router.names()
        if len(names) == 1:
            return names[0]
        if not names:
            raise SalverError("NOT_FOUND", "nothing is deployed", "deploy a version: salver deploy NAME")
        listed = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        raise SalverError(
            "INVALID_PARAMETER",
            f"the path names no model, and {len(names)} endpoints are deployed",
            f"name one in the header X-Salver-Endpoint, or set server.default_endpoint; there are {listed}",
        )
