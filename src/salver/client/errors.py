"""What a call to a server may end with instead of an answer."""

from __future__ import annotations

from typing import Final

from salver.protocol.errors import SalverError

__all__ = ["NEVER_RAN", "CallError"]

NEVER_RAN: Final = frozenset({"NOT_READY", "OVERLOADED", "CONTROL_UNAVAILABLE"})
"""What a server answers with its own code before a model has seen the request. An answer without one
was a proxy's, and nobody knows what happened behind it."""


class CallError(SalverError):
    """A `SalverError` that came from a server, or from the way to it.

    `retry_after_s` is what the server says to wait before asking again, `request_id` how its log
    calls the request. `may_have_run` is False where it is certain that no model ran for it.
    """

    def __init__(
        self,
        code: str,
        message: str,
        remedy: str = "",
        *,
        may_have_run: bool,
        retry_after_s: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(code, message, remedy, retry_after_s=retry_after_s)
        self.may_have_run = may_have_run
        self.request_id = request_id
        if request_id:
            self.add_note(f"request id {request_id}")
