"""No code comes out of data: a process that has said so can not unpickle.

Every unpickling that could run code has to look up what to call, and says so to the interpreter's
audit hooks before it does, whichever library it hides in. A hook cannot be removed again, and costs
nothing where nothing is audited: a request is answered without a single audited event.
"""

from __future__ import annotations

import sys
from typing import Any, Final

__all__ = ["UnpicklingError", "forbid_unpickling"]

_LOOKED_UP: Final = "pickle.find_class"


class UnpicklingError(RuntimeError):
    """Something tried to unpickle in a process that never does."""


def forbid_unpickling() -> None:
    """From now on, and for the life of this process, unpickling anything but plain values raises."""
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event == _LOOKED_UP:
        raise UnpicklingError(f"unpickling is not done in this process: {'.'.join(map(str, arguments))[:200]}")
