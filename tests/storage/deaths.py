"""Processes that are killed at the n-th thing they do to the file system or to a database.

One interpreter has imported everything and forks for each death, so that hundreds take seconds.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["deaths"]

_PROGRAM = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
{act}
WATCHED = {{"open", "os.rename", "os.remove", "os.rmdir", "os.link", "os.mkdir", "os.chmod", "sqlite3.connect"}}
left = 0
root = ""
def step(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
def watch(name, arguments):
    if root and name in WATCHED and root in str(arguments):
        step()
sys.addaudithook(watch)
for moment in ("before_cursor_execute", "commit"):
    event.listen(Engine, moment, step)
for name in ("fsync", "write"):
    def stepped(*arguments, call=getattr(os, name)):
        if root:
            step()
        return call(*arguments)
    setattr(os, name, stepped)
for line in sys.stdin:
    number, given = line.rstrip("\\n").split("\\t", 1)
    child = os.fork()
    if not child:
        left = int(number)
        root = given.split("\\t")[0]
        try:
            act(*given.split("\\t"))
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@contextmanager
def deaths(act: str) -> Iterator[Callable[..., bool]]:
    """What `act` (a program that defines a function of that name) does with arguments, killed at step n.

    Yields `die(n, directory, *arguments)`, which tells whether it died: else it did all of it. Counted is what
    happens below `directory`, the first argument of the function.
    """
    child = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM.format(act=act)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def die(number: int, *arguments: object) -> bool:
        child.stdin.write("\t".join(map(str, (number, *arguments))) + "\n")
        child.stdin.flush()
        code = int(child.stdout.readline())
        assert code in (0, -9), code
        return code == -9

    try:
        yield die
    finally:
        child.stdin.close()
        child.wait()
        child.stdout.close()
