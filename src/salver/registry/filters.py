"""The filter language: conditions on what is known of versions.

    expression := conjunction ("or" conjunction)*
    conjunction := negation ("and" negation)*
    negation := "not" negation | "(" expression ")" | test
    test := "exists" FIELD | FIELD OPERATOR value | FIELD "in" "[" value ("," value)* "]"
    OPERATOR := "=" | "!=" | "<" | "<=" | ">" | ">=" | "~"
    value := NUMBER | WORD | "text" | 'text'

`~` compares with a pattern (`*`, `?`, `[...]`), whatever the case of letters. Of what is not there every comparison is
false, but `!=`, which is "not =". A date stands for its whole day, in UTC.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from operator import or_
from typing import Any, Final, Literal, NamedTuple

from salver.protocol.errors import SalverError
from salver.protocol.stages import Stage
from salver.registry.comparisons import comparison, pattern, read_value
from salver.registry.fields import Field, Kind, Source, VersionFacts, field_named, nearest

__all__ = ["Filter", "Joined", "Not", "Test", "parse_filter"]

LONGEST: Final = 4000
DEEPEST: Final = 32
_MOST_TESTS: Final = 200
_LONGEST_PATTERN: Final = 200
"""Characters; comparing takes as many steps as pattern times text has in the worst case, and nothing else runs then."""
_SHOWN: Final = 50
_OPERATORS: Final = ("<=", ">=", "!=", "=", "<", ">", "~")
_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<sign><=|>=|!=|[=<>~()\[\],])
      | (?P<text>"(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*')
      | (?P<word>(?:[^\s()\[\],=!<>~"'] | (?<=\.)"[^"]*")+)
    )""",
    re.VERBOSE,
)


class _Token(NamedTuple):
    kind: str
    """sign, text, word or end."""
    text: str
    at: int


@dataclass(frozen=True)
class Test:
    """A comparison; `operator` "exists" asks for any value, "in" for one of several."""

    field: Field
    operator: str
    values: tuple[Any, ...]
    passes: Callable[[Any], bool]

    def holds(self, facts: VersionFacts) -> bool:
        """Whether it holds of any value of the field."""
        return any(map(self.passes, self.field.read(facts)))

    @property
    def source(self) -> Source:
        """What must be known of a version."""
        return self.field.source

    @property
    def names(self) -> frozenset[str]:
        """The fields it looks at."""
        return frozenset({self.field.name})


@dataclass(frozen=True)
class Not:
    """What does not hold."""

    part: Filter

    def holds(self, facts: VersionFacts) -> bool:
        """Whether the part does not hold."""
        return not self.part.holds(facts)

    @property
    def source(self) -> Source:
        """What must be known of a version."""
        return self.part.source

    @property
    def names(self) -> frozenset[str]:
        """The fields it looks at."""
        return self.part.names


@dataclass(frozen=True)
class Joined:
    """Conditions that hold together, joined by "and", or of which one holds, by "or"."""

    word: Literal["and", "or"]
    parts: tuple[Filter, ...]

    def holds(self, facts: VersionFacts) -> bool:
        """Whether all of them hold, or one of them."""
        found = (part.holds(facts) for part in self.parts)
        return all(found) if self.word == "and" else any(found)

    @property
    def source(self) -> Source:
        """What must be known of a version."""
        return functools.reduce(or_, (part.source for part in self.parts), Source.VERSIONS)

    @property
    def names(self) -> frozenset[str]:
        """The fields it looks at."""
        return frozenset().union(*(part.names for part in self.parts))


Filter = Test | Not | Joined


def parse_filter(text: str) -> Filter:
    """The filter that `text` is; raises INVALID_PARAMETER pointing at the place where it is none."""
    if len(text) > LONGEST:
        raise SalverError("INVALID_PARAMETER", f"the filter has {len(text)} characters", f"use at most {LONGEST}")
    return _Parser(text).parse()


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._read_tokens()
        self._next = 0
        self._depth = 0
        self._tests = 0

    def parse(self) -> Filter:
        found = self._expression()
        if self._here.kind != "end":
            raise self._wrong(self._here, f"{_shown(self._here)} is not expected here", "write and, or, or nothing")
        return found

    def _read_tokens(self) -> list[_Token]:
        tokens, at = [], 0
        while self._text[at:].strip():
            match = _TOKEN.match(self._text, at)
            if match is None:
                start = at + len(self._text[at:]) - len(self._text[at:].lstrip())
                stray = _Token("stray", self._text[start], start)
                unended = stray.text in "\"'"
                raise self._wrong(
                    stray,
                    "a text does not end" if unended else f"{stray.text!r} is not understood",
                    "end it with the quotation mark it began with" if unended else "put texts in quotation marks",
                )
            kind = match.lastgroup or "end"
            tokens.append(_Token(kind, match[kind], match.start(kind)))
            at = match.end()
        return [*tokens, _Token("end", "", len(self._text))]

    @property
    def _here(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._here
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _is(self, kind: str, text: str) -> bool:
        here = self._here
        return here.kind == kind and (here.text.lower() if kind == "word" else here.text) == text

    def _expression(self) -> Filter:
        return self._joined("or", self._conjunction)

    def _conjunction(self) -> Filter:
        return self._joined("and", self._negation)

    def _joined(self, word: Literal["and", "or"], part: Callable[[], Filter]) -> Filter:
        parts = [part()]
        while self._is("word", word):
            self._take()
            parts.append(part())
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def _negation(self) -> Filter:
        if not self._is("word", "not") and not self._is("sign", "("):
            return self._test()
        opening = self._take()
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._wrong(opening, f"the filter is nested more than {DEEPEST} deep", "say it more simply")
        if opening.text != "(":
            found: Filter = Not(self._negation())
        else:
            found = self._expression()
            self._sign(")", f"to close the one at character {opening.at + 1}")
        self._depth -= 1
        return found

    def _test(self) -> Filter:
        self._tests += 1
        if self._tests > _MOST_TESTS:
            raise self._wrong(self._here, f"the filter has more than {_MOST_TESTS} comparisons", "use in [...]")
        if self._is("word", "exists"):
            self._take()
            return Test(self._field(), "exists", (), lambda _: True)
        named, token = self._field(), self._tokens[self._next - 1]
        if self._is("word", "in"):
            return self._in(named)
        operator = self._take()
        if operator.kind != "sign" or operator.text not in _OPERATORS:
            raise self._wrong(
                operator, f"behind {token.text} stands {_shown(operator)}", f"write one of {' '.join(_OPERATORS)} or in"
            )
        if named.kind is Kind.TRUTH and operator.text not in ("=", "!="):
            raise self._wrong(operator, f"{named.name} is true or false", "compare it with = or !=")
        value = self._value(named, operator.text)
        if operator.text == "!=":
            return Not(Test(named, "=", (value,), comparison("=", value)))
        return Test(named, operator.text, (value,), comparison(operator.text, value))

    def _in(self, named: Field) -> Test:
        self._take()
        self._sign("[", "behind in")
        values = [self._value(named, "=")]
        while self._is("sign", ","):
            self._take()
            values.append(self._value(named, "="))
        self._sign("]", "or a comma")
        self._tests += len(values)
        tests = [comparison("=", value) for value in values]
        return Test(named, "in", tuple(values), lambda found: any(test(found) for test in tests))

    def _sign(self, text: str, why: str) -> None:
        token = self._take()
        if token.kind != "sign" or token.text != text:
            raise self._wrong(token, f"{_shown(token)} stands where {text} is missing", f"write {text} {why}")

    def _field(self) -> Field:
        token = self._take()
        if token.kind != "word":
            raise self._wrong(token, f"{_shown(token)} stands where a field is missing", "such as stage or metrics.auc")
        name = re.sub(r'"([^"]*)"', r"\1", token.text)
        found = field_named(name)
        if found is None:
            raise self._wrong(token, f"there is no field {name[:80]!r}", nearest(name))
        return found

    def _value(self, named: Field, operator: str) -> Any:
        token = self._take()
        if token.kind not in ("word", "text"):
            raise self._wrong(token, f"{_shown(token)} stands where a value is missing", f"write {named.kind.value}")
        text = re.sub(r"\\(.)", r"\1", token.text[1:-1]) if token.kind == "text" else token.text
        if operator == "~":
            if len(text) > _LONGEST_PATTERN:
                raise self._wrong(token, f"the pattern has {len(text)} characters", f"use at most {_LONGEST_PATTERN}")
            return pattern(text)
        try:
            return read_value(named.kind, text, quoted=token.kind == "text")
        except (ValueError, OverflowError, SalverError):
            kinds = f"one of {', '.join(Stage)}" if named.kind is Kind.STAGE else named.kind.value
            raise self._wrong(token, f"{named.name} is compared with {_shown(token)}", f"write {kinds}") from None

    def _wrong(self, token: _Token, problem: str, remedy: str) -> SalverError:
        start = max(0, token.at - _SHOWN)
        line = self._text[start : token.at + _SHOWN]
        # One column for each character, so that the mark below stands where it should.
        line = "".join(char if char.isprintable() else " " for char in line)
        mark = " " * (token.at - start) + "^" * max(1, min(len(token.text), _SHOWN))
        return SalverError(
            "INVALID_PARAMETER",
            f"the filter is wrong at character {token.at + 1}: {problem}\n  {line}\n  {mark}",
            remedy,
        )


def _shown(token: _Token) -> str:
    return "the end" if token.kind == "end" else token.text[:60]
