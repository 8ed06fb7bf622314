"""Reading an artifact from disk before it is registered: its files, format and signature.

Nothing here executes an artifact's code in the calling process: where the signature cannot be
had otherwise, a child process is asked for it (`salver.runtime.describe`).
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import msgspec

from salver.protocol.errors import SalverError
from salver.protocol.formats import FORMATS, MAX_FILES, is_always_code
from salver.protocol.signature import Signature
from salver.runtime.declaration import DECLARATION_FILE, Declaration, check_signature, read_declaration
from salver.runtime.environment import child_environment
from salver.runtime.formats import Format, Source, format_named

__all__ = ["Artifact", "describe_in_child", "read_artifact", "source_of"]

_DESCRIBE_TIMEOUT_S = 120.0
_IGNORED = {"__pycache__", ".git", ".DS_Store"}


class Artifact(msgspec.Struct, frozen=True):
    """What a path offers for registration.

    `files` maps each relative path inside the artifact to the file that holds it now.
    """

    format: str
    files: dict[str, Path]
    signature: Signature
    declaration: Declaration
    executes_code: bool


def read_artifact(path: Path, *, format: str | None = None, trust_code: bool = False) -> Artifact:
    """Read the artifact at `path`, a file or a directory.

    Raises INVALID_ARTIFACT when it cannot be understood, REFUSED_BY_POLICY when loading it can
    execute code (a pickle, an untrusted skops file) and `trust_code` is false. Python classes
    are code by nature and need no such word: they only ever run in a worker.
    """
    files = _files(path)
    directory = path if path.is_dir() else path.parent
    declaration = read_declaration(path) if path.is_dir() else Declaration()
    named = format or declaration.format or ("python" if declaration.entry else "")
    chosen, source = _choose_format(path, directory, named, declaration)
    executes_code = chosen.executes_code(source)
    if executes_code and not is_always_code(chosen.name) and not trust_code:
        raise SalverError(
            "REFUSED_BY_POLICY",
            f"loading {source.main.name!r} can execute code that came with it",
            "if you made it yourself, add --trust-code; it then runs in a worker process only",
        )
    signature = describe_in_child(path, chosen.name) if executes_code else chosen.signature(source, declaration)
    return Artifact(chosen.name, files, check_signature(signature), declaration, executes_code)


def source_of(path: Path, format: Format, declaration: Declaration) -> Source:
    """The source that `format` loads from a file or directory; raises INVALID_ARTIFACT if it recognises none.

    Among several files that it might load, a declared `entry` tells which.
    """
    main = format.main_file(path) if path.is_dir() else path
    if main is None and declaration.entry:
        module, _, _ = declaration.entry.partition(":")
        main = path / f"{module.replace('.', '/')}.py"
    if main is None:
        raise SalverError(
            "INVALID_ARTIFACT",
            f"{path.name!r} holds no file, or several, that format {format.name} would load",
            "keep one model file in the directory, named model.* if in doubt",
        )
    return Source(path if path.is_dir() else path.parent, main)


def describe_in_child(path: Path, format: str) -> Signature:
    """Ask a child process for the signature of an artifact whose code must not run here."""
    command = [sys.executable, "-m", "salver.runtime.describe", str(path), format]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_DESCRIBE_TIMEOUT_S, check=False, env=child_environment()
        )
    except subprocess.TimeoutExpired:
        raise SalverError(
            "INVALID_ARTIFACT", f"{path.name!r} did not load within {_DESCRIBE_TIMEOUT_S:.0f} s"
        ) from None
    try:
        if done.returncode == 0:
            return msgspec.json.decode(done.stdout, type=Signature)
        problem = msgspec.json.decode(done.stdout, type=dict[str, str])
        raise SalverError(problem["code"], problem["message"], problem["remedy"])
    except (msgspec.DecodeError, KeyError):
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise SalverError(
            "INVALID_ARTIFACT", f"loading {path.name!r} in a child process failed: {last or 'no message'}"
        ) from None


def _files(path: Path) -> dict[str, Path]:
    if not path.exists():
        raise SalverError("INVALID_ARTIFACT", f"there is no file or directory {str(path)!r}", "check the path")
    if path.is_file():
        return {path.name: path}
    found: dict[str, Path] = {}
    for folder, folders, names in os.walk(path, onerror=_refuse_unreadable):
        folders[:] = sorted(set(folders) - _IGNORED)
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in (*links, *sorted(set(names) - _IGNORED)):
            file = Path(folder, name)
            if not stat.S_ISREG(file.lstat().st_mode):
                raise SalverError(
                    "INVALID_ARTIFACT",
                    f"{file.relative_to(path).as_posix()!r} is no regular file",
                    "copy what a link points to into the artifact",
                )
            found[file.relative_to(path).as_posix()] = file
            if len(found) > MAX_FILES:
                raise SalverError("INVALID_ARTIFACT", f"the artifact has more than {MAX_FILES} files")
    if not found:
        raise SalverError("INVALID_ARTIFACT", f"the directory {path.name!r} is empty")
    return found


def _refuse_unreadable(error: OSError) -> None:
    raise SalverError("INVALID_ARTIFACT", f"a directory of the artifact cannot be read: {error.strerror}")


def _choose_format(path: Path, directory: Path, named: str, declaration: Declaration) -> tuple[Format, Source]:
    if named:
        chosen = format_named(named)
        return chosen, source_of(path, chosen, declaration)
    for name, facts in FORMATS.items():
        if any(file.suffix in facts.suffixes for file in ([path] if path.is_file() else directory.iterdir())):
            chosen = format_named(name)
            return chosen, source_of(path, chosen, declaration)
    raise SalverError(
        "INVALID_ARTIFACT",
        f"no format recognises {path.name!r}",
        f"pass --format ({', '.join(FORMATS)}) or name it in {DECLARATION_FILE}",
    )
