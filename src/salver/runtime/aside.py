"""Blocking work beside the event loop, that nobody has to wait for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["run_aside"]

Result = TypeVar("Result")


def run_aside(work: Callable[[], Result], discard: Callable[[Result], None], name: str) -> asyncio.Future[Result]:
    """Run `work` in a daemon thread of its own called `name`.

    A thread cannot be stopped. When the future is cancelled and `work` succeeds all the same,
    its result is given to `discard`, in the thread. Work that never returns keeps its thread,
    and neither later work nor the end of the process waits for it, as they would in a pool.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if future.cancelled():
            if error is None:
                threading.Thread(target=discard, args=(result,), name=name, daemon=True).start()
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # without an error there is a result

    def run() -> None:
        result: Result | None = None
        failure: BaseException | None = None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - it is raised where the future is awaited
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
