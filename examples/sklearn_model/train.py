"""Train a classifier on the iris flowers that ship with scikit-learn and save it for Salver.

    python examples/sklearn_model/train.py iris-model

writes `iris-model/model.skops` (the fitted estimator), `iris-model/train.npy` (its training
inputs, for the profile) and `iris-model/rows.npy` (a few rows it has not seen).
"""

import sys
from pathlib import Path

import numpy as np
import skops.io
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    flowers = load_iris()
    names = flowers.target_names[flowers.target]
    train, held_out, train_names, held_out_names = train_test_split(
        flowers.data, names, test_size=0.3, random_state=0, stratify=names
    )
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(train, train_names)
    skops.io.dump(model, folder / "model.skops")
    np.save(folder / "train.npy", train)
    np.save(folder / "rows.npy", held_out[:5])
    print(f"accuracy {model.score(held_out, held_out_names):.3f} on {len(held_out)} held-out flowers")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
