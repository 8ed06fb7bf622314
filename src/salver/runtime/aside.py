"""Blocking work beside the event loop, that nobody has to wait for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from typing import Final, TypeVar

__all__ = ["be_patient", "run_aside"]

_MOST_PATIENT: Final = 19

Result = TypeVar("Result")


def be_patient() -> None:
    """Let this thread, and those that it starts, run when no other wants the processor. It cannot be taken back."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _MOST_PATIENT)


async def run_aside(work: Callable[[], Result], discard: Callable[[Result], None], name: str) -> Result:
    """Run `work` in a daemon thread of its own called `name`, and return what it returns.

    A thread cannot be stopped. When the waiting is cancelled and `work` succeeds all the same, its
    result is given to `discard`, in a thread. Work that never returns keeps its thread, and neither
    later work nor the end of the process waits for it, as they would in a pool.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if future.cancelled():
            if error is None:
                give_up(result)  # type: ignore[arg-type]  # without an error there is a result
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def give_up(result: Result) -> None:
        threading.Thread(target=discard, args=(result,), name=name, daemon=True).start()

    def run() -> None:
        result: Result | None = None
        failure: BaseException | None = None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - it is raised where the work is awaited
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        return await future
    except asyncio.CancelledError:
        # The result may have come in the very turn in which its waiter leaves.
        if not future.cancelled() and future.exception() is None:
            give_up(future.result())
        raise
