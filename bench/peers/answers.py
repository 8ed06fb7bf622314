"""That a server answers right, asked from several connections at once, so that its batches are mixed."""

from concurrent.futures import ThreadPoolExecutor

import catalog
import numpy as np
import running

TEXTS = (
    "A man is playing the guitar on the street.",
    "Rain.",
    "The parcel that was promised for Monday has still not come, and nobody answers the telephone.",
    "How do I reset my password?",
    "Two children build a castle of sand near the water while their parents read in the shade of a large umbrella.",
    "The central bank left its interest rate where it was.",
    "ok",
    "The train to the coast leaves from platform four at ten past nine, and a seat by the window costs nothing more.",
)
TEST_ROWS = 540
LEAST_COSINE = 0.97
"""The weights have 8 bits and their scale comes from the batch: other neighbours, slightly other numbers."""


class WrongError(running.UnableError):
    """A server whose answers are not those of the model."""


def require_right(url, peer, model, instances, expected):
    """Ask one instance at a time over eight connections; raises WrongError at the first that differs."""

    def answer(instance):
        return catalog.values_of(
            peer.body, model, running.ask(url, catalog.request(peer.body, model, [instance], dims=peer.dims))
        )

    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(answer, instances))
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise WrongError(f"an answer to {model} cannot be read: {error!r:.200}") from None
    for number, (values, right) in enumerate(zip(found, expected, strict=True)):
        if not alike(model, np.asarray(values, np.float64).reshape(-1), right):
            raise WrongError(f"its answer to row {number} of {model} is not the model's: {str(values)[:100]}")


def alike(model, values, right):
    if values.shape != right.shape:
        return False
    if model == "minilm":
        return float(values @ right) >= LEAST_COSINE * float(np.linalg.norm(values) * np.linalg.norm(right))
    return bool((values == right).all())


def expected_of(model, work, rows, url=None, peer=None):
    """Right answers: the graph's own for digits; for texts Salver's to each alone, one after the other."""
    if model == "minilm":
        return [
            np.asarray(
                catalog.values_of(peer.body, model, running.ask(url, catalog.request(peer.body, model, [text]))),
                np.float64,
            )
            for text in TEXTS
        ]
    if model == "noop":
        return [row[:1].astype(np.float64) for row in rows]
    import onnxruntime as ort

    labels = ort.InferenceSession(str(work / "digits.onnx")).run(None, {"X": rows})[0]
    return [np.asarray([label], np.float64) for label in labels]
