"""Text that goes on: each next word is drawn from those that have followed the last two."""

import json
import random

import numpy as np

import salver


class Words(salver.Model):
    """Text in, its continuation out, a word at a time. The signature stands in salver-model.toml."""

    def load(self, path):
        self.follows = json.loads((path / "follows.json").read_text(encoding="utf-8"))

    def stream(self, inputs):
        draw = random.Random(_number(inputs, "seed", 0))
        said = inputs["text_input"][0, 0].decode().split()[-2:]
        for _ in range(_number(inputs, "max_words", 20)):
            following = self.follows.get(" ".join(said))
            if following is None:
                return
            word = draw.choice(following)
            said = [*said[1:], word]
            yield {"text_output": np.array([[" " + word]], dtype=object)}


def _number(inputs, name, default):
    return int(inputs[name][0, 0]) if name in inputs else default
