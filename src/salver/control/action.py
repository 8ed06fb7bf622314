"""Actions: what can be asked of the administration, each written once.

An action says how it is asked over HTTP, what it requires, which structures go in and out, and what carries it out.
From that one row come the route of the control listener, its documentation, the check of the principal, and the call
of the command line - which carries it out itself where no server runs, and asks the server's controller where one does.

To add one: two structures, a function and a row in `salver/control/actions/SUBJECT.py`, and the row's name in that
file's `ACTIONS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from salver.control.route import Call, ControlRoute
from salver.protocol.errors import SalverError

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration
    from salver.control.waiting import Followed
    from salver.security.access import Operation

__all__ = ["Action", "Nothing"]

Asked = TypeVar("Asked", bound=msgspec.Struct)
Answer = TypeVar("Answer")

_PARAMETER: Final = re.compile(r"{(\w+)}")


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked where there is nothing to say."""


@dataclass(frozen=True)
class Action(Generic[Asked, Answer]):
    """One thing that an administrator can have done.

    `template` names fields of `asked` in braces; they stand in the path. The others are the query of a GET or DELETE,
    in which only strings, numbers, booleans and None can be, and else the JSON body.
    """

    method: str
    template: str
    operation: Operation
    summary: str
    asked: type[Asked]
    answer: type[Answer]
    act: Callable[[LocalAdministration, Asked], Answer]
    """Carries it out for the administration's principal; may block, though not for long."""
    followed: Callable[[LocalAdministration, Asked], Followed[Answer]] | None = None
    """The same over HTTP for somebody who follows the journal, and waits where there is nothing to tell yet."""

    @property
    def route(self) -> ControlRoute:
        """The row of the control listener."""
        return ControlRoute(
            self.method,
            self.template,
            self.operation,
            self._act,
            self.summary,
            self._body_type(),
            self.answer,
            followed=self.followed is not None,
        )

    def _act(self, admin: LocalAdministration, call: Call) -> Answer | Followed[Answer]:
        asked = self._read(call)
        return admin.do(self, asked) if self.followed is None else self.followed(admin, asked)

    def write(self, asked: Asked) -> tuple[str, Any]:
        """The path with its query, and the body or None, that ask for this over HTTP."""
        fields: dict[str, Any] = msgspec.to_builtins(asked)
        parts = {name: quote(str(fields.pop(name)), safe="@") for name in self._in_path}
        path = self.template.format(**parts)
        if self._has_body:
            return path, fields
        query = urlencode({name: _in_query(value) for name, value in fields.items() if value is not None})
        return (f"{path}?{query}" if query else path), None

    def _read(self, call: Call) -> Asked:
        if not self._in_path and isinstance(call.body, self.asked):
            return call.body
        fields: dict[str, Any] = msgspec.to_builtins(call.body) if self._has_body and call.body else dict(call.query)
        try:
            return msgspec.convert(fields | call.params, self.asked, strict=self._has_body)
        except msgspec.ValidationError as error:
            raise SalverError("INVALID_PARAMETER", f"the request is wrong: {error}", "see /docs") from None

    @property
    def _in_path(self) -> list[str]:
        return _PARAMETER.findall(self.template)

    @property
    def _has_body(self) -> bool:
        return self.method in ("POST", "PUT", "PATCH")

    def _body_type(self) -> Any:
        """What of `asked` stands in the body: all that is not in the path."""
        left = [field for field in msgspec.structs.fields(self.asked) if field.name not in self._in_path]
        if not (self._has_body and left):
            return None
        if not self._in_path:
            return self.asked
        return msgspec.defstruct(
            f"{self.asked.__name__}Body",
            [(field.name, field.type, _default(field)) for field in left],
            frozen=True,
            forbid_unknown_fields=True,
            omit_defaults=True,
            kw_only=True,
        )


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return msgspec.field(default_factory=field.default_factory)
    return msgspec.field(default=field.default)


def _in_query(value: Any) -> str:
    return "true" if value is True else "false" if value is False else str(value)
