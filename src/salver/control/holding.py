"""Who may change a home: whoever takes its lock, or the server that has it."""

from __future__ import annotations

import contextlib
import threading
from typing import Final

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.storage.home import Home, Serving

__all__ = ["hold_home"]

_PATIENCE_S: Final = 10.0
_LOOK_S: Final = 0.02


def hold_home(home: Home, purpose: str, stack: contextlib.ExitStack, clock: Clock) -> Serving | None:
    """Take the lock of `home` until `stack` is closed; where a server has it, return that server.

    A command holds a home for a moment, so another one waits for it, 10 s at most. Blocks.
    Raises CONFLICT naming the holder.
    """
    until_s = clock.monotonic_s() + _PATIENCE_S
    pause = threading.Event()
    while True:
        serving = home.read_serving()
        if serving is not None:
            return serving
        try:
            stack.enter_context(home.lock(purpose))
        except SalverError as error:
            if error.code != "CONFLICT" or clock.monotonic_s() > until_s:
                raise
            pause.wait(_LOOK_S)
        else:
            return None
