"""`python -m salver.evaluation.service.clean_process`: a clean place in which a version is loaded and asked once.

No network, nowhere to write but its directory, the memory that a deployment will declare; the version itself runs in
a worker below. It says what it saw and ends.
"""

from __future__ import annotations

import contextlib
import traceback
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from salver.evaluation.subject.sent_array import SentArray
from salver.protocol.errors import SalverError
from salver.protocol.tables import VersionManifest
from salver.runtime.asking import answer_once
from salver.runtime.child import LONGEST_PROBLEM
from salver.runtime.confinement import Confined, network_attempts
from salver.runtime.environment import become_subreaper

__all__ = ["CleanOrder", "CleanReport", "main"]

_CANDIDATE: Final = "candidate"
_MOST_NAMED: Final = 20
_TEMPORARY: Final = "tmp"
_WORKER: Final = "salver.runtime.worker"


class CleanOrder(msgspec.Struct, frozen=True):
    """What is to be tried, and where it may write."""

    home: str
    manifest: VersionManifest
    memory_bytes: int
    inputs: tuple[SentArray, ...]
    """Rows, asked one by one."""
    directory: str
    """Its own, with an empty `home` and `tmp` in it, which are its HOME and TMPDIR."""


class CleanReport(msgspec.Struct, frozen=True):
    """What came of it."""

    outputs: tuple[SentArray, ...] = ()
    problem: str = ""
    """Why it did not load, or did not answer."""
    cold_start_s: float = 0.0
    """From nothing loaded to the first answer."""
    loaded_s: float = 0.0
    peak_bytes: int = 0
    """Resident memory of the worker at its highest."""
    network: bool = False
    """Whether it was in a network of its own."""
    read_only: bool = False
    """Whether nothing else could be written."""
    attempts: int = 0
    """To reach the network."""
    wrote: tuple[str, ...] = ()
    """Files it made in its home or where it was started; those in its temporary directory are its own to make."""
    left: tuple[str, ...] = ()
    """What was still there when it had been unloaded: files, and processes."""


def main() -> None:
    """Try one version."""
    become_subreaper()
    answer_once(CleanOrder, _tried)


def _tried(order: CleanOrder) -> CleanReport:
    confined = Confined.here()
    report = CleanReport(network=confined.network, read_only=confined.files)
    try:
        report = _run(order, report)
    except SalverError as error:
        cause = getattr(error, "cause", "")
        report = msgspec.structs.replace(report, problem=f"{error}{f' ({cause})' if cause else ''}"[:LONGEST_PROBLEM])
    except BaseException as error:  # noqa: BLE001 - whatever it raises is told
        said = "".join(traceback.format_exception_only(error)).strip()
        report = msgspec.structs.replace(report, problem=said[:LONGEST_PROBLEM])
    if confined.network:
        report = msgspec.structs.replace(report, attempts=network_attempts())
    return msgspec.structs.replace(report, left=(*report.left, *_processes(), *_shared(confined)))


def _run(order: CleanOrder, report: CleanReport) -> CleanReport:
    from salver.clock import SYSTEM_CLOCK  # noqa: PLC0415 - after the confinement, like all that may start threads
    from salver.evaluation.subject.serving import serve_versions  # noqa: PLC0415
    from salver.protocol.tables import Placement  # noqa: PLC0415
    from salver.storage.home import Home  # noqa: PLC0415

    directory = Path(order.directory)
    settings = {"placement": Placement.PROCESS, "worker_memory_bytes": order.memory_bytes}
    inputs = {tensor.name: tensor.numpy() for tensor in order.inputs}
    began_s = SYSTEM_CLOCK.monotonic_s()
    with serve_versions(
        Home.open(Path(order.home)), {_CANDIDATE: order.manifest}, SYSTEM_CLOCK, batch_rows=1, settings=settings
    ) as served:
        loaded_s = SYSTEM_CLOCK.monotonic_s() - began_s
        first = served[_CANDIDATE].ask({name: array[:1] for name, array in inputs.items()})
        cold_start_s = SYSTEM_CLOCK.monotonic_s() - began_s
        rest = served[_CANDIDATE].ask({name: array[1:] for name, array in inputs.items()}) if _rows(inputs) > 1 else {}
        peak_bytes = _peak_bytes()
        wrote = _files(directory)
    answers = {name: np.concatenate([array, rest[name]]) if rest else array for name, array in first.items()}
    return msgspec.structs.replace(
        report,
        outputs=tuple(SentArray.of(name, array) for name, array in answers.items()),
        loaded_s=loaded_s,
        cold_start_s=cold_start_s,
        peak_bytes=peak_bytes,
        wrote=wrote,
        left=tuple(f"file {each}" for each in _files(directory / _TEMPORARY)),
    )


def _rows(inputs: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]) -> int:
    return len(next(iter(inputs.values())))


def _files(directory: Path) -> tuple[str, ...]:
    """The files below a directory, without those for passing use, which are its own to make."""
    found = [path.relative_to(directory) for path in sorted(directory.rglob("*")) if not path.is_dir()]
    return tuple(str(path) for path in found if path.parts[0] != _TEMPORARY)[:_MOST_NAMED]


def _processes() -> tuple[str, ...]:
    """What was still running below this process, and no longer is; orphans have come to it."""
    import psutil  # noqa: PLC0415

    names = []
    for each in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if each.status() != psutil.STATUS_ZOMBIE:
                names.append(f"process {each.name()}")
                each.kill()
    return tuple(names[:_MOST_NAMED])


def _shared(confined: Confined) -> tuple[str, ...]:
    """Shared memory that is still there, where it is this process's own."""
    if not confined.files:
        return ()
    path = Path("/dev/shm")  # noqa: S108 - nothing is made in it
    left = [each.name for each in sorted(path.iterdir()) if not each.is_dir()]
    return tuple(f"shared memory {name}" for name in left[:_MOST_NAMED])


def _peak_bytes() -> int:
    import psutil  # noqa: PLC0415

    found = 0
    for child in psutil.Process().children(recursive=True):
        if _WORKER in child.cmdline():
            status = Path(f"/proc/{child.pid}/status").read_text()
            lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
            found += int(lines[0].split()[1]) * 1024 if lines else 0
    return found


if __name__ == "__main__":
    main()
