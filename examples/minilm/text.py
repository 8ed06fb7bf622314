"""Texts to token ids: what runs in the worker before the graph.

`tokenizer.json` says the rest: it cuts off what is longer than the model was trained on, and fills up to the longest
text of the batch, so a batch of short texts is a small one.
"""

import os
from pathlib import Path

import numpy as np

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processors belong to the graph and to other workers

from tokenizers import Tokenizer  # reads that when it is first used

import salver

TOKENIZER = Tokenizer.from_file(str(Path(__file__).with_name("tokenizer.json")))


def tokenize(inputs):
    """`text` to `input_ids` and `attention_mask`, one row a text. A text that is not UTF-8 is refused."""
    try:
        found = TOKENIZER.encode_batch_fast([text.decode() for text in inputs["text"]])
    except UnicodeDecodeError as error:
        raise salver.BadInputError(f"the text is not UTF-8: {error.reason} at byte {error.start}") from None
    return {
        "input_ids": np.array([encoding.ids for encoding in found], np.int64),
        "attention_mask": np.array([encoding.attention_mask for encoding in found], np.int64),
    }
