"""Secrets in words that are kept: arguments of commands, and what programs say when they fail.

What looks like a secret is known by how it is written - `--token X`, `PASSWORD=X`, `//user:X@host`, `Bearer X`, a token
of Salver's - and is replaced by `***`. A secret that is written like nothing else passes: it belongs into the
environment of the command, or into a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

__all__ = ["redacted", "redacted_words", "secrets_among", "without"]

_HIDDEN: Final = "***"
_NAME: Final = (
    r"(?<![\w.-])[\w.-]*(?:password|passwd|passphrase|pwd|secret|token(?!i[sz]|s)|(?:api|access|private)[_-]?key|credential"
    r"|authorization)[\w.-]*"
)
_OPTION: Final = re.compile(rf"(?=-){_NAME}", re.IGNORECASE)
_ASSIGNED: Final = re.compile(rf"""({_NAME}["']?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s"',;&]+)""", re.IGNORECASE)
_FOLLOWING: Final = re.compile(rf"((?<!\S)(?=-){_NAME}\s+)(?!-)(\S+)", re.IGNORECASE)
_IN_URL: Final = re.compile(r"(//[^\s/@:]*):[^\s/@]+@")
_BEARER: Final = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_SHORTEST: Final = 4
"""A shorter value is in too many words to be hidden wherever it occurs."""


def redacted(text: str) -> str:
    """`text` without what looks like a secret.

    >>> redacted("cannot log in: https://ann:hunter2@db/x?token=abc (Authorization: Bearer abcdefgh)")
    'cannot log in: https://ann:***@db/x?token=*** (Authorization: *** ***)'
    """
    text = _BEARER.sub(rf"\1 {_HIDDEN}", text)
    text = _IN_URL.sub(rf"\1:{_HIDDEN}@", text)
    text = _ASSIGNED.sub(rf"\1{_HIDDEN}", text)
    return _FOLLOWING.sub(rf"\1{_HIDDEN}", text)


def redacted_words(words: Sequence[str]) -> tuple[str, ...]:
    """The words of a command, each without what looks like a secret, and without the values of options that say so.

    >>> redacted_words(("train", "--api-key", "abc", "--db=postgresql://ann:pw@db/x", "--epochs", "3"))
    ('train', '--api-key', '***', '--db=postgresql://ann:***@db/x', '--epochs', '3')
    """
    found = []
    for at, word in enumerate(words):
        is_value = at > 0 and _OPTION.fullmatch(words[at - 1]) is not None and not word.startswith("-")
        found.append(_HIDDEN if is_value else redacted(word))
    return tuple(found)


def secrets_among(words: Sequence[str]) -> Iterator[str]:
    """What `redacted_words` leaves out.

    >>> list(secrets_among(("train", "--api-key", "abc", "--db=postgresql://ann:pw@db/x")))
    ['abc', 'pw']
    """
    for word, shown in zip(words, redacted_words(words), strict=True):
        if shown != word:
            before, _, after = shown.partition(_HIDDEN)
            yield word if _HIDDEN in after else word[len(before) : len(word) - len(after)]


def without(text: str, secrets: Iterable[str]) -> str:
    """`text` with each of `secrets` hidden wherever it stands."""
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, _HIDDEN)
    return text
