"""The process between a child and whoever started it: sees it end, and ends all that it has started.

    parent -> leash (adopts whoever loses its parent) -> the command -> whatever it starts

A command that ends, is told to end, or loses the process it was started by - killed, too - leaves nothing: neither a
process, however it detached itself, nor its temporary directory. `salver.runtime.child` starts this and reads its
report: the command's process id; then `exited CODE` or `killed SIGNAL`, or `absent WHY` where it does not start.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from salver.runtime.confinement import CONFINED_VARIABLE, can_confine, confine
from salver.runtime.environment import become_subreaper, die_with_parent, hear_of_parents_death, own_children

__all__ = ["Leash"]

_TOLD: Final = frozenset({signal.SIGTERM, signal.SIGCHLD})
_LOOK_S: Final = 0.02
_LOOKS: Final = 200
"""What is killed dies when the kernel lets it; four seconds, then it is left to the system."""


class Leash(NamedTuple):
    """What holds one command; made of words, as the arguments of a process are."""

    parent: int
    report: int
    """The descriptor that is told what becomes of the command, which does not get it."""
    room: str
    """The command's temporary directory, removed at the end."""
    memory_bytes: int
    """Of each process, at most; 0 for no limit."""
    confined: int
    """Whether it gets no network, and writes nowhere but where it is started."""
    command: tuple[str, ...]

    def words(self) -> list[str]:
        """As arguments."""
        return [*map(str, self[:-1]), *self.command]

    @classmethod
    def of(cls, words: list[str]) -> Leash:
        """What `words` gave."""
        parent, report, room, memory_bytes, confined, *command = words
        return cls(int(parent), int(report), room, int(memory_bytes), int(confined), tuple(command))

    def hold(self) -> None:
        """Run the command to its end, or to that of the parent. REQUIRES a process that does nothing else."""
        os.set_inheritable(self.report, False)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _TOLD)
        if hear_of_parents_death(self.parent, signal.SIGTERM):
            self._run(before)
        shutil.rmtree(self.room, ignore_errors=True)

    def _run(self, before: set[int | signal.Signals]) -> None:
        become_subreaper()
        confined = bool(self.confined) and can_confine()
        holder = os.getpid()
        if not (pid := os.fork()):
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._become(holder, confined=confined)
        end = _awaited(pid)
        if end is not None:
            self._tell(f"killed {-end}" if end < 0 else f"exited {end}")
        _end_all(pid)

    def _become(self, holder: int, *, confined: bool) -> NoReturn:
        """In the new process: take what it may not have, and become the command."""
        try:
            os.setsid()
            self._tell(str(os.getpid()))
            os.environ.pop(CONFINED_VARIABLE, None)
            if confined:
                os.environ[CONFINED_VARIABLE] = confine(Path.cwd()).words()
            die_with_parent(holder)  # after the confinement, which would make it void
            _limit(resource.RLIMIT_CORE, 0)
            if self.memory_bytes:
                _limit(resource.RLIMIT_DATA, self.memory_bytes)
            os.execvp(self.command[0], self.command)  # noqa: S606 - no shell is to read it
        except (OSError, ValueError) as error:
            self._tell(f"absent {getattr(error, 'strerror', '') or error}")
        finally:
            os._exit(127)

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError):  # whoever would read it is dead
            os.write(self.report, f"{line}\n".encode())


def _limit(what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def _awaited(pid: int) -> int | None:
    """How the command ended, by a signal below 0; None when it is to end."""
    while signal.sigwait(_TOLD) == signal.SIGCHLD:
        # Several deaths may be one signal, and orphans have come to be waited for.
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitpid(-1, os.WNOHANG):
                if ended[0] == pid:
                    return os.waitstatus_to_exitcode(ended[1])
                if not ended[0]:
                    break
    return None


def _end_all(pid: int) -> None:
    """Kill the command's session and then, as they become this process's own, all that left it."""
    # At once, so that none of them can start another meanwhile.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for _ in range(_LOOKS):
        for each in own_children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        signal.sigtimedwait({signal.SIGCHLD}, _LOOK_S)
