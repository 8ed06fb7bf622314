"""A corpus of real text that needs no download: the first sentences of SciPy's documentation, and the room they are of.

    python examples/text_topics/corpus.py corpus.csv

writes `text` and `room`, one of linalg, signal, special and stats. SciPy is under the BSD licence; which version it
was is part of the corpus, since other versions say other things.
"""

import csv
import importlib
import inspect
import re
import sys
import warnings
from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer

ROOMS = ("linalg", "signal", "special", "stats")
_SIGNATURE = re.compile(r"\w+\(.*\)( ->.*)?")
_MARKUP = re.compile(r"[`:*]|\\\w+")
_FEWEST_WORDS = 3
_LONGEST = 300
_ALIKE = 0.8


def sentences() -> list[tuple[str, str]]:
    """(sentence, room) of everything public that one room alone describes so, sorted."""
    rooms: dict[str, set[str]] = {}
    for room in ROOMS:
        module = importlib.import_module(f"scipy.{room}")
        for name in module.__all__:
            for sentence in _summary(getattr(module, name, None)):
                rooms.setdefault(sentence, set()).add(room)
    known = sorted((sentence, min(found)) for sentence, found in rooms.items() if len(found) == 1)
    return [known[index] for index in _unlike([sentence for sentence, _ in known])]


def _unlike(sentences: list[str]) -> list[int]:
    """The places of sentences that are not nearly the same as one before: split, they would be on both sides."""
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)).fit_transform(sentences)
    alike = (vectors @ vectors.T).toarray() >= _ALIKE
    kept: list[int] = []
    for index in range(len(sentences)):
        if not alike[index, kept].any():
            kept.append(index)
    return kept


def _summary(item: object) -> list[str]:
    if not callable(item):
        return []
    paragraphs = [" ".join(paragraph.split()) for paragraph in (inspect.getdoc(item) or "").split("\n\n")]
    said = [each for each in paragraphs if each and not _SIGNATURE.fullmatch(each) and not each.startswith("..")]
    first = _MARKUP.sub("", said[0])[:_LONGEST] if said else ""
    return [first] if len(first.split()) >= _FEWEST_WORDS else []


def main(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some names are on their way out
        found = sentences()
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "room"), *found])
    print(f"{path.name}: {len(found)} sentences of {len(ROOMS)} rooms")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
