from __future__ import annotations

import io
import json

import numpy as np
import pytest


@pytest.fixture
def ask(shared, salver, monkeypatch):
    """`salver predict double` against the shared server."""
    monkeypatch.setenv("SALVER_HOME", str(shared.home))

    def run(*arguments: object, stdin: bytes = b""):
        return salver("--json", "predict", "double", *arguments, stdin=stdin)

    return run


def test_a_request_by_hand_comes_back_as_the_server_answers_it(ask, shared, tmp_path) -> None:
    request = shared.rows([1, 2]) | {"id": "mine"}
    done = ask(stdin=json.dumps(request).encode())
    assert done.code == 0, done.err
    assert (done.json["id"], done.json["model_version"]) == ("mine", "1.0.0")
    assert done.json["outputs"][0]["data"] == [2, 4]
    (tmp_path / "request.json").write_text(json.dumps(request))
    assert ask("--input", tmp_path / "request.json").json["outputs"] == done.json["outputs"]


def test_npy_csv_and_parquet_rows_are_sent(ask, tmp_path) -> None:
    table = np.array([[1, 2], [0.5, 1.5]], np.float32)
    expected = [[2, 4], [1, 3]]
    buffer = io.BytesIO()
    np.save(buffer, table)
    assert ask(stdin=buffer.getvalue()).json["outputs"] == {"y": expected}
    (tmp_path / "rows.csv").write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\r\n0.5, 1.5\r\n")
    done = ask("--input", tmp_path / "rows.csv")
    assert done.json == {"model_version": "1.0.0", "outputs": {"y": expected}, "warnings": []}
    assert ask(stdin=b"1,2\n.5,1.5\n").json["outputs"] == {"y": expected}
    # Text has no datatype: 0.1 is read as the nearest value of the input's.
    assert ask(stdin=b"0.1,0").json["outputs"]["y"] == [[float(np.float32(0.1) * 2), 0]]
    import pyarrow as pa
    from pyarrow.parquet import write_table

    write_table(pa.table({"a": table[:, 0], "b": table[:, 1]}), tmp_path / "rows.parquet")
    assert ask("--input", tmp_path / "rows.parquet").json["outputs"] == {"y": expected}


def test_more_rows_than_run_together_are_sent_in_several_requests_and_come_back_as_one_answer(
    ask, shared, tmp_path
) -> None:
    table = np.arange(2000, dtype=np.float32).reshape(1000, 2)
    np.save(tmp_path / "rows.npy", table)
    assert ask("--input", tmp_path / "rows.npy").json["outputs"] == {"y": (table * 2).tolist()}
    flat = shared.rows(table) | {"id": "mine"}
    nested = json.loads(json.dumps(flat))
    nested["inputs"][0]["data"] = table.tolist()
    for request in (flat, nested):
        done = ask(stdin=json.dumps(request).encode())
        assert done.code == 0, done.err
        assert done.json == {
            "model_name": "double",
            "model_version": "1.0.0",
            "id": "mine",
            "outputs": [
                {"name": "y", "datatype": "FP32", "shape": [1000, 2], "data": (table * 2).reshape(-1).tolist()}
            ],
        }


@pytest.mark.parametrize(
    ("stdin", "code"),
    [
        (b"{", "INVALID_JSON"),
        (b'{"inputs": []}', "MISSING_INPUT"),
        (b"", "INVALID_ARTIFACT"),
        (b"a,b\n", "INVALID_ARTIFACT"),
        (b"1,2\n3\n", "INVALID_ARTIFACT"),
        (b"1,2\none,two\n", "INVALID_ARTIFACT"),
        (b"\x93NUMPY\x01", "INVALID_ARTIFACT"),
        (b"1,2,3\n", "WRONG_SHAPE"),
    ],
)
def test_what_cannot_be_sent_or_is_refused_says_so(ask, stdin, code) -> None:
    done = ask(stdin=stdin)
    assert (done.code, done.error["code"], done.out) == (1, code, "")


def test_an_unknown_endpoint_a_wrong_token_and_a_silent_server_are_told_apart(ask, salver, shared) -> None:
    request = json.dumps(shared.rows([1, 2])).encode()
    assert salver("--json", "predict", "nothing", stdin=request).error["code"] == "NOT_FOUND"
    assert salver("--json", "predict", "Not A Name", stdin=request).error["code"] == "INVALID_NAME"
    done = ask("--token", "wrong", stdin=request)
    assert (done.code, done.error["code"]) == (3, "UNAUTHENTICATED")
    for content in (request, b"1,2"):
        done = ask("--url", "http://127.0.0.1:9", stdin=content)
        assert (done.code, done.error["code"]) == (1, "NOT_READY")


def test_an_administrators_right_comes_from_the_token(shared, salver, monkeypatch) -> None:
    monkeypatch.setenv("SALVER_HOME", str(shared.home))
    monkeypatch.setenv("SALVER_TOKEN", shared.token("cli-predictor", "predictor"))
    done = salver("--json", "models")
    assert (done.code, done.error["code"]) == (3, "PERMISSION_DENIED")
    monkeypatch.setenv("SALVER_TOKEN", "nonsense")
    refused = salver("--json", "models").error
    assert (refused["code"], "correct the token in SALVER_TOKEN" in refused["remedy"]) == ("UNAUTHENTICATED", True)
    monkeypatch.delenv("SALVER_TOKEN")
    assert salver("models").code == 0
    status = salver("status")
    assert "double    double@1.0.0  ready  double@1.0.0  inline" in status.out
    assert salver("--json", "audit").json[-1]["actor"] == "admin"
    (shared.home / "admin.token").rename(shared.home / "kept")
    try:
        done = salver("--json", "models")
        assert (done.code, done.error["code"]) == (3, "UNAUTHENTICATED")
        assert "SALVER_TOKEN" in done.error["remedy"]
    finally:
        (shared.home / "kept").rename(shared.home / "admin.token")
