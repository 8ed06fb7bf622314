"""A process on its own: no network, and nowhere to write but one directory. Linux only, by its namespaces.

What the kernel does not permit here - containers often forbid namespaces - is reported as not done, never assumed.
The network of its own has no way out, and the kernel counts what tries: also what swallows the error is seen.
"""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["CONFINED_VARIABLE", "Confined", "can_confine", "confine", "network_attempts"]

CONFINED_VARIABLE: Final = "SALVER_CONFINED"
"""The environment variable that tells a confined process what of it the kernel did."""

_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_MS_REC_PRIVATE: Final = 0x4000 | (1 << 18)
_MS_BIND: Final = 0x1000
_SHARED: Final = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory is
_MOUNT_SETATTR: Final = 442
"""The number of the system call, on x86-64 as on arm64."""
_AT_FDCWD: Final = -100
_AT_RECURSIVE: Final = 0x8000
_RDONLY: Final = 0x1
_COUNTERS: Final = (("snmp", "Ip", "OutNoRoutes"), ("snmp", "Ip", "OutRequests"), ("snmp6", "", "Ip6OutNoRoutes"))


class Confined(NamedTuple):
    """What of it the kernel did."""

    network: bool
    """Whether it has a network of its own, without a way out."""
    files: bool
    """Whether everything but its directory is read-only, and shared memory its own."""

    @classmethod
    def here(cls) -> Confined:
        """How this process is confined."""
        words = os.environ.get(CONFINED_VARIABLE, "").split()
        return cls(*(name in words for name in cls._fields))

    def words(self) -> str:
        """What is so, by name: the value of `CONFINED_VARIABLE`."""
        return " ".join(name for name, done in self._asdict().items() if done)


class _MountAttributes(ctypes.Structure):
    """struct mount_attr of mount_setattr(2)."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def can_confine() -> bool:
    """Whether `confine` succeeds here: a system may permit a namespace and nothing in it, with no way back."""
    if not (pid := os.fork()):
        try:
            confine(Path.cwd())
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def confine(directory: Path) -> Confined:
    """Take the network from this process and its children, and all files but those in `directory` for writing.

    REQUIRES a process with one thread, that is done with everything else.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    for flags in (_CLONE_NEWNET | _CLONE_NEWNS, _CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWNS):
        if libc.unshare(flags) == 0:
            if flags & _CLONE_NEWUSER:
                _stay(uid, gid)
            return Confined(True, _make_read_only(libc, directory))
    return Confined(False, False)


def _stay(uid: int, gid: int) -> None:
    """Be in the new user namespace whom one was before."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def _make_read_only(libc: ctypes.CDLL, directory: Path) -> bool:
    if platform.machine() not in ("x86_64", "aarch64"):
        return False
    path, root = os.fsencode(directory), b"/"
    done = libc.mount(b"none", root, None, _MS_REC_PRIVATE, None) == 0
    done = done and _own_shared_memory(libc)
    done = done and libc.mount(path, path, None, _MS_BIND, None) == 0
    done = done and _set_attributes(libc, root, _MountAttributes(attr_set=_RDONLY))
    for writable in (path, os.fsencode(_SHARED), b"/proc"):
        done = done and _set_attributes(libc, writable, _MountAttributes(attr_clr=_RDONLY), recursive=False)
    # The path that one is in was that of the mount below.
    os.chdir(directory)
    return done


def _own_shared_memory(libc: ctypes.CDLL) -> bool:
    """Shared memory that belongs to this process alone and is gone with it; directories in it stay what they are."""
    with os.scandir(_SHARED) as entries:
        kept = {each.name: os.open(each, os.O_PATH) for each in entries if each.is_dir(follow_symlinks=False)}
    done: bool = libc.mount(b"tmpfs", os.fsencode(_SHARED), b"tmpfs", 0, None) == 0
    for name, descriptor in kept.items():
        if done:
            (_SHARED / name).mkdir()
            source, target = f"/proc/self/fd/{descriptor}".encode(), os.fsencode(_SHARED / name)
            done = libc.mount(source, target, None, _MS_BIND, None) == 0
        os.close(descriptor)
    return done


def _set_attributes(libc: ctypes.CDLL, path: bytes, wanted: _MountAttributes, *, recursive: bool = True) -> bool:
    flags = _AT_RECURSIVE if recursive else 0
    done: int = libc.syscall(
        ctypes.c_long(_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(path),
        ctypes.c_uint(flags),
        ctypes.byref(wanted),
        ctypes.c_size_t(ctypes.sizeof(wanted)),
    )
    return done == 0


def network_attempts() -> int:
    """How often anything in this network namespace tried to reach somebody; 0 at its start.

    REQUIRES one of its own: `Confined.network`.
    """
    return sum(_counter(*each) for each in _COUNTERS)


def _counter(file: str, group: str, name: str) -> int:
    try:
        lines = Path(f"/proc/self/net/{file}").read_text().splitlines()
    except OSError:
        return 0  # a kernel without IPv6
    if not group:
        return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), 0)
    rows = [line.split() for line in lines if line.startswith(f"{group}:")]
    return int(rows[1][rows[0].index(name)]) if len(rows) > 1 and name in rows[0] else 0
