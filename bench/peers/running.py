"""One server at a time: its environment, its start, and that nothing of it is left.

The harness adopts orphans, so every process that a server started, however detached, is a descendant and is ended.
"""

import contextlib
import ctypes
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
APPS = Path(__file__).parent / "apps"
START_S = 90
STOP_S = 20
BUILD_S = 900
PR_SET_CHILD_SUBREAPER = 36


@dataclasses.dataclass(frozen=True)
class Address:
    """Where a server takes requests: one model over HTTP, and any of its models over gRPC if it has that."""

    url: str
    grpc: str = ""


class UnableError(Exception):
    """A peer that cannot be measured, with the reason as the page shows it."""


def adopt_orphans():
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def build(name):
    """Make a peer's environment where it is not; raises UnableError with the end of what was said."""
    made = f".venvs/peers/{name}/.made"
    before = descendants()
    words = ["make", "-s", made]
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said = process.communicate(timeout=BUILD_S)[0].splitlines()
    except subprocess.TimeoutExpired:
        raise UnableError(f"its environment took more than {BUILD_S} s to make") from None
    finally:
        stop(process, before)
    if process.returncode:
        errors = [line for line in said if "error" in line.lower()] or said
        raise UnableError(f"its environment cannot be made: {' / '.join(errors[-3:])[:300]}")


def version(name, package):
    python = ROOT / ".venvs" / "peers" / name / "bin" / "python"
    ask = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    return subprocess.run([python, "-c", ask, package], capture_output=True, text=True, check=True).stdout.strip()


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def running(peer, model, folder, body):
    """A peer that serves `model` from `folder`, once it answers `body` with 200; yields where."""
    ports = free_ports(peer.ports)
    url = f"http://127.0.0.1:{ports[0]}{peer.path.format(model=model)}"
    # Short, because Ray has sockets in it, and their paths may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as work:
        before = descendants()
        log = Path(work, "log")
        with log.open("wb") as out:
            process = subprocess.Popen(
                command(peer, ports),
                cwd=work,
                env=environment(peer.name, model, folder, work),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until_it_answers(process, url, body, log)
            yield Address(url, f"http://127.0.0.1:{ports[peer.grpc]}" if peer.grpc else "")
        finally:
            stop(process, before)
    still = [port for port in ports if not is_free(port)]
    if still:
        raise UnableError(f"it has gone and ports {still} are still taken")


def command(peer, ports):
    programs = ROOT / ".venvs" / "peers" / peer.name / "bin"
    if not peer.command:
        return [programs / "python", APPS / f"{peer.name}_app.py", *map(str, ports)]
    program, *words = (word.format(port=ports[0], apps=APPS) for word in peer.command)
    return [programs / program, *words]


def environment(name, model, folder, work):
    """Nothing of the caller's but where programs are: settings of his own would be a peer's."""
    programs = ROOT / ".venvs" / "peers" / name / "bin"
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": work,
        "TMPDIR": work,
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(APPS),
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "BENTOML_DO_NOT_TRACK": "True",
        "PEER_MODEL": model,
        "PEER_FOLDER": str(folder),
    }


def wait_until_it_answers(process, url, body, log):
    deadline = time.monotonic() + START_S
    while True:
        try:
            ask(url, body)
        except (OSError, ValueError) as error:
            problem = error
        else:
            return
        if process.poll() is not None:
            raise UnableError(f"it ended with {process.returncode}: {tail(log)}")
        if time.monotonic() > deadline:
            raise UnableError(f"no answer within {START_S} s ({problem}): {tail(log)}")
        time.sleep(0.1)


def ask(url, body):
    """The answer to one request; raises OSError unless it is 200."""
    asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        if answer.status != 200:
            raise OSError(f"status {answer.status}")
        return answer.read()


def tail(log):
    """The last lines of a log; on standard error more of them."""
    print(log.read_text(errors="replace")[-3000:], file=sys.stderr, flush=True)
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-2:])[:300]


def stop(process, before):
    """Ask a program to end, then end whatever it leaves; nobody is left when this returns, also on Ctrl-C."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    for number in (signal.SIGTERM, signal.SIGKILL):
        left = [psutil.Process(pid) for pid in descendants() - before if psutil.pid_exists(pid)]
        for child in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(number)
        psutil.wait_procs(left, timeout=5)
    process.poll()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def descendants():
    return {child.pid for child in psutil.Process().children(recursive=True)}


def is_free(port):
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
