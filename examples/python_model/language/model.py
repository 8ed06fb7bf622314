"""Which language a text is in, told by its commonest small words."""

import json
import re
from pathlib import Path

import numpy as np

import salver

LETTERS = re.compile(r"[^\W\d_]+")


class Language(salver.Model):
    """Text in, one score for each language out. The signature stands in salver-model.toml."""

    def load(self, path: Path) -> None:
        words = json.loads((path / "words.json").read_text(encoding="utf-8"))
        self.words = [frozenset(listed) for listed in words.values()]

    def predict(self, inputs):
        texts = [text.decode() for text in inputs["text"]]
        return {"scores": np.array([self.scores(text) for text in texts], dtype=np.float32)}

    def scores(self, text):
        """The share of the text's small words that belongs to each language; equal shares when there are none."""
        found = LETTERS.findall(text.lower())
        counts = np.array([sum(word in known for word in found) for known in self.words], dtype=np.float64)
        return counts / counts.sum() if counts.any() else np.full(len(counts), 1 / len(counts))
