"""The sentence encoder in plain numpy, from the weights as they were trained: what the served one must agree with.

all-MiniLM-L6-v2 is BERT (arXiv 1810.04805) of six layers, read from a safetensors file: eight bytes of length, a JSON
head that says where each tensor lies, and the tensors.
"""

import json

import numpy as np
from scipy.special import erf
from threadpoolctl import threadpool_limits

LAYERS, HEADS, EPSILON = 6, 12, 1e-12


class Bert:
    def __init__(self, content: bytes) -> None:
        start = 8 + int.from_bytes(content[:8], "little")
        head = json.loads(content[8:start])
        self.weights = {}
        for name, tensor in head.items():
            if name != "__metadata__" and tensor["dtype"] == "F32":
                begin, end = tensor["data_offsets"]
                data = np.frombuffer(content, "<f4", (end - begin) // 4, start + begin)
                self.weights[name] = data.reshape(tensor["shape"])

    @threadpool_limits.wrap(limits=1)  # several threads wait for each other longer than they compute
    def embed(self, ids: list[int]) -> np.ndarray:
        """The embedding of one text, given as its token ids."""
        names = ("word_embeddings", "position_embeddings", "token_type_embeddings")
        words, places, segments = (self.weights[f"embeddings.{name}.weight"] for name in names)
        hidden = self.normalised(words[ids] + places[: len(ids)] + segments[0], "embeddings.LayerNorm")
        for layer in range(LAYERS):
            at = f"encoder.layer.{layer}"
            attended = self.linear(self.attention(hidden, f"{at}.attention.self"), f"{at}.attention.output.dense")
            hidden = self.normalised(hidden + attended, f"{at}.attention.output.LayerNorm")
            inner = self.linear(hidden, f"{at}.intermediate.dense")
            inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
            hidden = self.normalised(hidden + self.linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        mean = hidden.mean(axis=0)
        return mean / np.linalg.norm(mean)

    def attention(self, hidden: np.ndarray, at: str) -> np.ndarray:
        query, key, value = (
            self.linear(hidden, f"{at}.{part}").reshape(len(hidden), HEADS, -1).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1])
        likely = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (likely / likely.sum(axis=-1, keepdims=True)) @ value
        return mixed.transpose(1, 0, 2).reshape(hidden.shape)

    def linear(self, rows: np.ndarray, at: str) -> np.ndarray:
        return rows @ self.weights[f"{at}.weight"].T + self.weights[f"{at}.bias"]

    def normalised(self, rows: np.ndarray, at: str) -> np.ndarray:
        spread = np.sqrt(rows.var(axis=-1, keepdims=True) + EPSILON)
        scaled = (rows - rows.mean(axis=-1, keepdims=True)) / spread
        return scaled * self.weights[f"{at}.weight"] + self.weights[f"{at}.bias"]
