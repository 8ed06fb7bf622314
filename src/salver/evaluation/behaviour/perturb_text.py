"""Changes of text that a reader would take in his stride, and negation, which he would not.

The kinds are those of CheckList (Ribeiro, Wu, Guestrin and Singh 2020, ACL). Each is a function of one text, of
what is asked and of a stream of random numbers. English where words matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from salver.evaluation.behaviour.perturb_tables import Change

__all__ = ["TEXT_CHANGES", "with_typos"]

_WORD: Final = re.compile(r"\w+(?:'\w+)?")
_NEIGHBOURS: Final = {
    "q": "wa", "w": "qes", "e": "wrd", "r": "etf", "t": "ryg", "y": "tuh", "u": "yij", "i": "uok", "o": "ipl",
    "p": "ol", "a": "qsz", "s": "awdx", "d": "sefc", "f": "drgv", "g": "fthb", "h": "gyjn", "j": "hukm", "k": "jil",
    "l": "kop", "z": "asx", "x": "zsdc", "c": "xdfv", "v": "cfgb", "b": "vghn", "n": "bhjm", "m": "njk",
}  # fmt: skip
"""Keys beside each other on a QWERTY keyboard."""
_CONTRACTED: Final = {
    "is not": "isn't", "are not": "aren't", "was not": "wasn't", "were not": "weren't", "do not": "don't",
    "does not": "doesn't", "did not": "didn't", "cannot": "can't", "can not": "can't", "could not": "couldn't",
    "would not": "wouldn't", "should not": "shouldn't", "will not": "won't", "have not": "haven't",
    "has not": "hasn't", "had not": "hadn't", "i am": "i'm", "it is": "it's", "that is": "that's", "he is": "he's",
    "she is": "she's", "we are": "we're", "you are": "you're", "they are": "they're", "i have": "i've",
    "we have": "we've", "you have": "you've", "they have": "they've", "i will": "i'll", "it will": "it'll",
}  # fmt: skip
_EXPANDED: Final = {short: long for long, short in _CONTRACTED.items() if long != "can not"}
_NEGATED: Final = re.compile(
    r"\b(is|are|was|were|am|can|could|will|would|should|must|does|did|do|has|have|had)\b(?!n't|\s+not\b)", re.IGNORECASE
)
_NEGATION: Final = re.compile(r"\s+not\b|n't\b|(?<=can)not\b", re.IGNORECASE)


def with_typos(text: str, share: float, rng: np.random.Generator) -> str:
    """A share of the words with one slip each: two letters swapped, one dropped, doubled, or a key beside it.

    At least one word, where there is one of more than two letters.
    """
    words = [found for found in _WORD.finditer(text) if len(found[0]) > 2]
    if not words:
        return text
    count = min(len(words), max(1, round(share * len(words))))
    chosen = sorted(rng.choice(len(words), count, replace=False), reverse=True)
    for index in chosen:
        word = words[int(index)]
        text = text[: word.start()] + _slip(word[0], rng) + text[word.end() :]
    return text


def _slip(word: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(len(word) - 1))
    kind = int(rng.integers(4))
    if kind == 0 and word[at] != word[at + 1]:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 1:
        return word[:at] + word[at + 1 :]
    near = _NEIGHBOURS.get(word[at].lower(), "")
    if kind == 2 and near:
        return word[:at] + near[int(rng.integers(len(near)))] + word[at + 1 :]
    return word[: at + 1] + word[at] + word[at + 1 :]


def _typos(text: str, change: Change, rng: np.random.Generator) -> str:
    return with_typos(text, change.amount, rng)


def _case(text: str, _: Change, rng: np.random.Generator) -> str:
    """All upper, all lower, or each word capitalised: one that differs."""
    others = [other for other in (text.upper(), text.lower(), text.title()) if other != text]
    return others[int(rng.integers(len(others)))] if others else text


def _punctuation(text: str, _: Change, rng: np.random.Generator) -> str:
    """What ends the text left out; or added, where nothing does."""
    bare = text.rstrip(" .!?;,")
    if bare != text:
        return bare
    return text + ("." if rng.random() < 0.5 else " .")


def _whitespace(text: str, _: Change, rng: np.random.Generator) -> str:
    """One gap wider, and space before and after."""
    gaps = [found.start() for found in re.finditer(r" ", text)]
    if gaps:
        at = gaps[int(rng.integers(len(gaps)))]
        text = text[:at] + ("  ", "\t", " \n ")[int(rng.integers(3))] + text[at + 1 :]
    return f" {text} "


def _like_word(new: str, old: str) -> str:
    """With a capital where the word it replaces has one."""
    return new[:1].upper() + new[1:] if old[:1].isupper() else new


def _replaced(text: str, others: Mapping[str, tuple[str, ...]], rng: np.random.Generator) -> str:
    """Every known word or phrase, the longest first, replaced by one of its others."""
    known = {word.lower(): rest for word, rest in others.items() if word and rest}
    if not known:
        return text
    pattern = "|".join(re.escape(word) for word in sorted(known, key=len, reverse=True))

    def other(found: re.Match[str]) -> str:
        rest = known[found[0].lower()]
        return _like_word(rest[int(rng.integers(len(rest)))], found[0])

    return re.sub(rf"(?<!\w)(?:{pattern})(?!\w)", other, text, flags=re.IGNORECASE)


def _synonyms(text: str, change: Change, rng: np.random.Generator) -> str:
    """`words` says for a word which others mean the same."""
    return _replaced(text, change.words, rng)


def _names(text: str, change: Change, rng: np.random.Generator) -> str:
    """`words` has lists (people, places): any of a list is replaced by another of it."""
    others = {
        name: tuple(other for other in names if other.lower() != name.lower())
        for names in change.words.values()
        for name in names
    }
    return _replaced(text, others, rng)


def _negation(text: str, _: Change, __: np.random.Generator) -> str:
    """The first "not" left out; or one put behind the first verb that takes it, if there is none."""
    if _NEGATION.search(text):
        return _NEGATION.sub("", text, count=1)
    return _NEGATED.sub(r"\1 not", text, count=1)


def _contractions(text: str, _: Change, rng: np.random.Generator) -> str:
    """Everywhere "do not" as "don't", or the other way round."""
    expanded = _replaced(text, {short: (long,) for short, long in _EXPANDED.items()}, rng)
    if expanded != text:
        return expanded
    return _replaced(text, {long: (short,) for long, short in _CONTRACTED.items()}, rng)


TEXT_CHANGES: Final[Mapping[str, Callable[[str, Change, np.random.Generator], str]]] = {
    "typos": _typos,
    "case": _case,
    "punctuation": _punctuation,
    "whitespace": _whitespace,
    "synonyms": _synonyms,
    "names": _names,
    "negation": _negation,
    "contractions": _contractions,
}
