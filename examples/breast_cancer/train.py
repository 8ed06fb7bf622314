"""Train five models of one question on the breast cancer data that ship with scikit-learn.

    python examples/breast_cancer/train.py models

writes the data and, as ONNX, a logistic regression, gradient boosting, a model that is worse (its labels were
shuffled), one that is leaky by its rows (it was trained on those that judge it), and one that is leaky by a column
that is only known when the diagnosis is. Beside each model stands what is to be said of it.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from salver.evaluation.subject.rows import read_rows
from salver.evaluation.subject.splits import split_digest, split_rows
from salver.evaluation.suites.scripts import read_suite

HERE = Path(__file__).parent


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    data = load_breast_cancer()
    names = [name.replace(" ", "_") for name in data.feature_names]
    malignant = 1 - data.target
    frame = pd.DataFrame(data.data, columns=names)
    frame.assign(malignant=malignant).to_csv(folder / "cancer.csv", index=False)
    # The code of the treatment: by the time it is known, so is the answer.
    code = malignant + np.random.default_rng(0).normal(scale=0.15, size=len(malignant))
    frame.assign(treatment_code=code, malignant=malignant).to_csv(folder / "cancer_with_code.csv", index=False)

    suite = read_suite(HERE / "suite.toml").suite
    rows = read_rows(folder / "cancer.csv")
    train, _ = split_rows(rows, suite.split, suite.suite.target)
    split = split_digest(suite.split)
    x, y = data.data, malignant
    np.save(folder / "train.npy", x[train])
    shuffled = np.random.default_rng(1).permutation(y[train])
    leaked = np.column_stack([x, code])

    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(x[train], y[train])
    boosted = GradientBoostingClassifier(n_estimators=150, learning_rate=0.2, max_depth=2, random_state=0)
    save(folder, "logistic", logistic, x, rows.digest, split)
    save(folder, "boosted", boosted.fit(x[train], y[train]), x, rows.digest, split)
    save(folder, "worse", DecisionTreeClassifier(max_depth=2).fit(x[train], shuffled), x, rows.digest, split)
    save(folder, "leaky", DecisionTreeClassifier(random_state=0).fit(x, y), x, rows.digest, "all rows")
    with_code = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(leaked[train], y[train])
    save(folder, "with_code", with_code, leaked, read_rows(folder / "cancer_with_code.csv").digest, split)


def save(folder: Path, name: str, model: object, x: np.ndarray, data: str, split: str) -> None:
    """Write NAME.onnx, and NAME.toml with what it was trained on."""
    graph = to_onnx(model, x[:1].astype(np.float32), options={id(model): {"zipmap": False}})
    (folder / f"{name}.onnx").write_bytes(graph.SerializeToString())
    (folder / f"{name}.toml").write_text(
        f'description = "Malignant or benign, from 30 measurements of cell nuclei: {name}"\n'
        'task = "classification"\nlicence = "CC-BY-4.0"\nowner = "tumour board"\n'
        f'[training_data]\nname = "breast cancer, Wisconsin"\ndigest = "{data}"\n'
        f'[extra]\ntraining_split = "{split}"\n'
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
