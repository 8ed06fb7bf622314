"""Continuous training: a verdict that turns bad has the user's command make a new candidate, once at a time.

    verdict recorded -> hook of the model -> command, told the verdict -> artifact -> version in `development`

What the command makes is registered like anything else and goes nowhere by itself: gates stand before it as before
all others. Begin and end of each run are on the journal, and the version says what it was made for.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import msgspec

from salver.clock import Clock
from salver.control.actions.registration import REGISTER
from salver.control.actions.retraining import BEGIN_RETRAINING, END_RETRAINING, Begin
from salver.control.administration import Administration, LocalAdministration
from salver.control.registration import draft_version
from salver.control.retraining_command import Made, run_command
from salver.control.retraining_hooks import RetrainingHook, hook_of, read_hooks
from salver.protocol.description import Description, merged
from salver.protocol.errors import SalverError
from salver.registry.retraining import RunEnd, RunStart
from salver.registry.retraining_runs import RUN
from salver.security.redaction import secrets_among, without
from salver.storage.home import Home
from salver.storage.journal import occasion
from salver.storage.opening import open_blobs
from salver.telemetry.logs import log_event

__all__ = ["Retraining", "retrain"]

_TICK_S: Final = 2.0
_AT_ONCE: Final = 2
_MADE_FOR: Final = "retrained_for"


def retrain(
    home: Home,
    administration: Callable[[], AbstractContextManager[Administration]],
    model: str,
    clock: Clock,
    *,
    evaluation: str | None = None,
    now: bool = False,
    why: str = "",
    scratch: Path | None = None,
) -> RunEnd:
    """Run the hook of `model` and register what it makes; blocks for as long as it takes.

    The command works in a directory below `scratch`, by default where temporary files are. The journal gets its begin
    and its end, whatever becomes of it. Raises NOT_FOUND for a model without a hook,
    CONFLICT while another run of it is under way or it rests (unless `now`), and what the command is at fault for.
    """
    hook = hook_of(home, model)
    with _only_run(home, model) as lock:
        with administration() as admin:
            begun = admin.do(BEGIN_RETRAINING, Begin(model, evaluation, now, why))
        since_s = clock.monotonic_s()
        ended = RunEnd(model, begun.run)
        try:
            ended = _run(home, administration, hook, begun, lock, scratch)
        except SalverError as error:
            told = without(str(error), _secrets_of(hook))
            ended = msgspec.structs.replace(ended, problem=told[:1000])
            raise SalverError(error.code, told) from None
        except BaseException:
            ended = msgspec.structs.replace(ended, problem="it was interrupted, or a fault of Salver ended it")
            raise
        finally:
            ended = msgspec.structs.replace(ended, duration_s=round(clock.monotonic_s() - since_s, 3))
            with administration() as admin:
                admin.do(END_RETRAINING, ended)
    return ended


def _secrets_of(hook: RetrainingHook) -> Iterator[str]:
    """What the command was given and is not for the journal or a log."""
    yield from secrets_among(hook.command)
    yield from (os.environ[name] for name in hook.environment if name in os.environ)


def _run(
    home: Home,
    administration: Callable[[], AbstractContextManager[Administration]],
    hook: RetrainingHook,
    begun: RunStart,
    lock: int,
    scratch: Path | None,
) -> RunEnd:
    with tempfile.TemporaryDirectory(prefix="salver-retrain-", dir=scratch, ignore_cleanup_errors=True) as room:
        path, made = run_command(hook, msgspec.json.encode(begun), Path(room).resolve(), lock)
        draft = draft_version(open_blobs(home), begun.model, path, format=made.format, trust_code=hook.trust_code)
        origin = {_MADE_FOR: begun.evaluation.id} if begun.evaluation else {}
        draft = msgspec.structs.replace(
            draft,
            metadata=draft.metadata | origin | {RUN: str(begun.run)},
            description=merged(Description(), _said(begun, made)),
        )
        with administration() as admin:
            done = admin.do(REGISTER, draft)
    return RunEnd(begun.model, begun.run, done.manifest.version, done.created)


def _said(begun: RunStart, made: Made) -> dict[str, Any]:
    """The lineage of what was made, with what its maker says of it."""
    verdict = begun.evaluation
    judged = f"{begun.model}@{begun.version}" if begun.version else ""
    why = f"suite {verdict.suite} was {verdict.verdict} for {judged}" if verdict else begun.why or "on request"
    said = {"change_note": f"retrained: {why}", "run_id": made.run_id or f"salver-retraining-{begun.run}"}
    return said | ({"base_model": judged} if judged else {}) | made.description


@contextlib.contextmanager
def _only_run(home: Home, model: str) -> Iterator[int]:
    """Hold the one place for a run of `model`, on this machine; whatever the run leaves behind goes on holding it."""
    folder = home.path / "retraining"
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder / f"{model}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SalverError("CONFLICT", f"{model!r} is being retrained", "wait until that run has ended") from None
        yield descriptor
    finally:
        os.close(descriptor)


class Retraining:
    """The controller's loop: looks for verdicts that call, and answers them in threads of its own."""

    def __init__(self, home: Home, administration: LocalAdministration, clock: Clock) -> None:
        self._home = home
        self._administration = administration
        self._clock = clock
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="retraining")
        self._models: set[str] = set()
        """Those whose command runs, or waits for a thread."""

    async def run(self) -> None:
        """Tick until cancelled. What still runs then ends with the process."""
        while True:
            try:
                await asyncio.to_thread(self.tick)
            except (SalverError, OSError) as error:
                log_event("retraining_unavailable", level=logging.WARNING, problem=str(error))
            except Exception as error:  # noqa: BLE001 - the next look may succeed
                log_event("fault", level=logging.ERROR, error=error)
            await asyncio.sleep(_TICK_S)

    def tick(self) -> None:
        """Look once; blocks for a moment."""
        hooks = read_hooks(self._home)
        if not hooks:
            return
        for evaluation in self._administration.records.retrainings.calling():
            hook = hooks.get(evaluation.model)
            if hook is None or not hook.wants(evaluation.suite, evaluation.verdict):
                continue
            if evaluation.model not in self._models:
                self._models.add(evaluation.model)
                self._threads.submit(self._answer, evaluation.model, evaluation.id, evaluation.suite)

    def _answer(self, model: str, evaluation: str, suite: str) -> None:
        try:
            self._home.scratch_path.mkdir(mode=0o700, exist_ok=True)
            log_event("retraining_begun", model=model, evaluation=evaluation, suite=suite)
            with occasion(why=f"evaluation {evaluation} of suite {suite}"):
                ended = retrain(
                    self._home,
                    lambda: contextlib.nullcontext(self._administration),
                    model,
                    self._clock,
                    evaluation=evaluation,
                    scratch=self._home.scratch_path,  # which is cleared when whoever serves has died
                )
            log_event("retraining_ended", model=model, run=ended.run, version=f"{model}@{ended.version}")
        except SalverError as error:
            log_event("retraining_failed", level=logging.WARNING, model=model, code=error.code, problem=str(error))
        except Exception as error:  # noqa: BLE001 - one run must not end the loop
            log_event("fault", level=logging.ERROR, error=error)
        finally:
            self._models.discard(model)
