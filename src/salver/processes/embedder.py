"""The controller as a client of its own server processes: vectors of texts, from the model deployed for them."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from salver.protocol.errors import SalverError
from salver.registry.semantic import Embedder
from salver.storage.home import Home

__all__ = ["ServedEmbedder"]

_TIMEOUT_S: Final = 20.0


class ServedEmbedder:
    """Asks the data listener of this home, with the token that the home keeps for its administrator.

    `certificate` is the file with the listener's own, empty where it speaks no TLS.
    """

    def __init__(self, home: Home, certificate: str) -> None:
        self._home = home
        self._certificate = certificate

    def __call__(self, embedder: Embedder, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of texts, a row each. Blocks; raises SalverError where the endpoint does not answer so."""
        from salver.client import Client  # noqa: PLC0415 - most controllers never need it

        serving = self._home.read_serving()
        if serving is None or serving.http is None:
            raise SalverError("NOT_READY", "nothing listens for HTTP", "serve with --http")
        rows = np.array([text.encode() for text in texts], dtype=object)
        with Client(serving.http, token=self._token(), timeout_s=_TIMEOUT_S, verify=self._verify()) as client:
            answer = client.predict(embedder.endpoint, {embedder.input: rows}, outputs=[embedder.output])
        return np.asarray(answer[embedder.output])

    def _token(self) -> str | None:
        try:
            return self._home.admin_token_path.read_text().strip() or None
        except FileNotFoundError:
            return None

    def _verify(self) -> ssl.SSLContext | bool:
        """Trust the listener's own certificate and no other, whatever name it is for."""
        if not self._certificate:
            return True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(self._certificate)
        return context
