"""Files to what the graph takes, and its scores to labels: the rules of the package `magika` when it shall be sure.

The model looks at the beginning and the end of a file, without white space around them. A file with next to nothing
in it never reaches it: its answer is settled before, and goes through the graph as `settled`.
"""

import json
from pathlib import Path

import numpy as np

RULES = json.loads(Path(__file__).with_name("rules.json").read_text(encoding="utf-8"))
BEGINNING, END, BLOCK = RULES["beg_size"], RULES["end_size"], RULES["block_size"]
LABELS, RENAMED, THRESHOLDS = RULES["target_labels_space"], RULES["overwrite_map"], RULES["thresholds"]
TEXTS = frozenset(RULES["texts"])
SETTLED = ("", "empty", "txt", "unknown")
"""Answers that need no model, by their number in the graph; 0 asks it."""


def features(inputs):
    """`file` to `bytes`, the numbers of its first and last bytes, and `settled`."""
    files = inputs["file"]
    rows = np.full((len(files), BEGINNING + END), RULES["padding_token"], np.int32)
    settled = np.zeros(len(files), np.int64)
    for row, (index, content) in zip(rows, enumerate(files), strict=True):
        beginning = content[:BLOCK].lstrip()[:BEGINNING]
        end = content[-BLOCK:].rstrip()[-END:]
        if len(beginning) < RULES["min_file_size_for_dl"]:
            settled[index] = SETTLED.index(without_model(content))
        row[: len(beginning)] = np.frombuffer(beginning, np.uint8)
        row[len(row) - len(end) :] = np.frombuffer(end, np.uint8)
    return {"bytes": rows, "settled": settled}


def without_model(content):
    """The label of a file with too little in it."""
    if not content:
        return "empty"
    try:
        content[:BLOCK].decode()
    except UnicodeDecodeError:
        return "unknown"
    return "txt"


def labels(outputs):
    """`target_label`, a score for each label of the model, and `settled` to `label` and `score`."""
    best = outputs["target_label"].argmax(axis=1)
    scores = outputs["target_label"].max(axis=1)
    settled = outputs["settled_label"]
    found = [
        SETTLED[known] or sure(LABELS[label], score) for known, label, score in zip(settled, best, scores, strict=True)
    ]
    return {"label": np.array(found, object), "score": np.where(settled > 0, np.float32(1), scores)}


def sure(label, score):
    """`label` where the score is high enough for it, else no more than whether it is text."""
    found = RENAMED.get(label, label)
    if score >= THRESHOLDS.get(label, RULES["medium_confidence_threshold"]):
        return found
    return "txt" if found in TEXTS else "unknown"
