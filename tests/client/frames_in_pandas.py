"""The client with real data frames, and with nothing installed but what it needs. Run by test_frames.py.

Usage: PYTHON frames_in_pandas.py URL DIRECTORY, with the package on PYTHONPATH. Prints `ok NAME` for each check.
"""

import asyncio
import sys

import numpy as np

import salver
from salver.client.frames import by_column, to_frame
from salver.protocol.errors import SalverError
from salver.protocol.signature import TensorSpec

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def refused(code, ask):
    try:
        ask()
    except SalverError as error:
        assert error.code == code, (error.code, str(error))
        return str(error)
    raise AssertionError(f"not refused with {code}")


@check
def nothing_imports_pandas_for_who_has_none(client, rows):
    answer = client.predict("iris", rows)
    assert len(answer["label"]) == 60
    for name in ("pandas", "httpx2", "google.protobuf", "grpc", "onnxruntime"):
        assert name not in sys.modules, name


@check
def a_frame_is_a_matrix_with_its_columns_in_order(client, rows):
    import pandas as pd

    frame = pd.DataFrame(rows, columns=["a", "b", "c"], index=[f"row {n}" for n in range(60)])
    answer = client.predict("iris", frame)
    assert np.array_equal(answer["probabilities"], client.predict("iris", rows)["probabilities"])
    table = answer.to_pandas()
    assert list(table.columns) == ["label", "probabilities_0", "probabilities_1"]
    assert list(table.index) == list(frame.index)
    assert table["label"].dtype == np.int64
    assert np.array_equal(table[["probabilities_0", "probabilities_1"]].to_numpy(), answer["probabilities"])
    assert "two columns" not in refused("WRONG_SHAPE", lambda: client.predict("iris", frame[["a", "b"]]))


@check
def many_rows_of_a_frame_go_in_parts_and_keep_their_index(client, rows):
    import pandas as pd

    frame = pd.DataFrame(np.concatenate([rows] * 10), index=np.arange(600) * 2)
    table = client.predict_all("iris", frame).to_pandas()
    assert np.array_equal(table.index, frame.index)
    assert np.array_equal(table["label"][:60], client.predict("iris", rows)["label"])

    async def main(url):
        async with salver.AsyncClient(url) as other:
            return (await other.predict_all("iris", frame, parallel=2)).to_pandas()

    assert asyncio.run(main(client._address.url)).equals(table)


@check
def every_column_is_converted_by_itself_and_exactly(client, rows):
    import pandas as pd

    del client, rows
    spec = TensorSpec("X", "INT64", (-1, 2))
    frame = pd.DataFrame({"big": [2**53 + 1, 1], "half": [0.5, 1.0]})
    assert "half" in refused("INVALID_VALUE", lambda: by_column("m", frame, [spec]))
    exact = by_column("m", frame.assign(half=[2.0, 1.0]), [spec])["X"]
    assert exact.tolist() == [[2**53 + 1, 2], [1, 1]]
    nullable = pd.DataFrame({"n": pd.array([1, 2], "Int64"), "b": pd.array([1.5, 2.5], "Float64")})
    assert by_column("m", nullable, [TensorSpec("X", "FP64", (-1, -1))])["X"].tolist() == [[1, 1.5], [2, 2.5]]
    missing = pd.DataFrame({"n": pd.array([1, None], "Int64")})
    assert "'n' has missing" in refused(
        "INVALID_VALUE", lambda: by_column("m", missing, [TensorSpec("X", "INT64", (-1, 1))])
    )
    nan = pd.DataFrame({"n": [1.0, np.nan]})
    assert np.isnan(by_column("m", nan, [TensorSpec("X", "FP32", (-1, 1))])["X"][1, 0])


@check
def columns_are_inputs_by_name_where_a_model_has_several(client, rows):
    import pandas as pd

    del client, rows
    specs = [TensorSpec("age", "INT32", (-1,)), TensorSpec("name", "BYTES", (-1, 1))]
    found = by_column("m", pd.DataFrame({"name": ["x", "y"], "age": [1, 2]}), specs)
    assert found["age"].shape == (2,)
    assert found["name"].shape == (2, 1)
    wide = [TensorSpec("a", "INT32", (-1, 2)), TensorSpec("b", "INT32", (-1, 2))]
    refused("WRONG_SHAPE", lambda: by_column("m", pd.DataFrame({"a": [1], "b": [2]}), wide))
    twice = pd.DataFrame([[1, 2]], columns=["age", "age"])
    refused("UNKNOWN_INPUT", lambda: by_column("m", twice, specs))
    gone = pd.DataFrame({"name": ["x", None], "age": [1, 2]})
    refused("INVALID_VALUE", lambda: by_column("m", gone, specs))


@check
def text_goes_in_and_comes_out_as_text(client, rows):
    import pandas as pd

    del rows
    frame = pd.DataFrame({"a": ["é", "x"], "b": ["y", "z"]})
    table = client.predict("text", frame).to_pandas()
    assert table.to_numpy().tolist() == [["é", "y"], ["x", "z"]]
    bits = to_frame({"y": np.array([b"\xff", b"a"], object)})
    assert bits["y"].tolist() == [b"\xff", b"a"]
    cube = np.zeros((2, 2, 2))
    refused("WRONG_SHAPE", lambda: to_frame({"y": cube}))
    refused("WRONG_SHAPE", lambda: to_frame({"a": cube[0], "b": np.zeros(3)}))


def main():
    url, directory = sys.argv[1:]
    rows = np.load(f"{directory}/rows.npy")
    with salver.Client(url) as client:
        for each in CHECKS:
            each(client, rows)
            print("ok", each.__name__)


if __name__ == "__main__":
    main()
