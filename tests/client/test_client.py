from __future__ import annotations

import asyncio
import inspect
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest

import salver
from salver import Client as TheClient
from salver.client import AsyncClient, CallError, Client, EndpointMetadata, Timing
from salver.client.inputs import to_tensors
from salver.protocol.errors import SalverError
from salver.protocol.signature import TensorSpec


def test_the_package_offers_the_client():
    assert TheClient is Client
    assert salver.AsyncClient is AsyncClient
    assert str(inspect.signature(Client)) == str(inspect.signature(AsyncClient)).replace("AsyncClient", "Client")
    methods = [name for name in vars(Client) if not name.startswith("_")]
    assert methods == [name for name in vars(AsyncClient) if not name.startswith("_")]
    for name in methods:
        assert str(inspect.signature(getattr(Client, name))) == str(inspect.signature(getattr(AsyncClient, name)))


def test_a_prediction_is_what_the_runtime_itself_answers(client, rows, onnx_models):
    label, probabilities = onnxruntime.InferenceSession(onnx_models["iris"]).run(None, {"X": rows})
    answer = client.predict("iris", rows)
    assert np.array_equal(answer["label"], label)
    assert np.array_equal(answer["probabilities"], probabilities)
    assert answer.model_version == "1.0.0"
    assert answer.endpoint == "iris"
    assert answer.warnings == ()
    assert list(answer) == ["label", "probabilities"]
    assert repr(answer) == "<Prediction of iris@1.0.0: label int64[60], probabilities float32[60, 2]>"


def test_lists_do_as_well_as_arrays(client, rows):
    assert np.array_equal(client.predict("iris", rows[:2].tolist())["label"], client.predict("iris", rows[:2])["label"])


def test_the_arrays_of_an_answer_belong_to_the_caller(client, rows):
    answer = client.predict("iris", rows)
    answer["probabilities"][:] = 0
    assert answer["probabilities"].flags.aligned


def test_tensors_are_not_copied_on_their_way(url, rows):
    declared = EndpointMetadata("m", (), "", (TensorSpec("x", "FP32", (-1, 3)),), ())
    (tensor,) = to_tensors("m", rows, declared)
    assert np.shares_memory(np.frombuffer(tensor.data, np.float32), rows)
    (across,) = to_tensors("m", np.asfortranarray(rows), declared)
    assert bytes(across.data) == rows.tobytes()
    (reversed_,) = to_tensors("m", rows.astype(">f4"), declared)
    assert bytes(reversed_.data) == rows.tobytes()
    with Client(url) as client:
        answer = client.predict("iris", rows)
    # Views of what was received.
    assert not answer["label"].flags.owndata
    assert not answer["probabilities"].flags.owndata
    assert answer["label"].ctypes.data % 64 == 0


def test_several_inputs_come_in_a_mapping(client):
    answer = client.predict("sum", {"b": np.int32([[1, 2]]), "a": [[10, 20]]})
    assert answer["y"].tolist() == [[11, 22]]


def test_one_array_for_two_inputs_is_refused_before_anything_is_sent(client):
    with pytest.raises(SalverError, match=r"takes 2 inputs.*'a', 'b'") as caught:
        client.predict("sum", [[1, 2]])
    assert caught.value.code == "MISSING_INPUT"


def test_text_and_half_floats_travel_in_binary(client):
    assert client.predict("text", [["é", b"\x00b"]])["y"].tolist() == [["é".encode(), b"\x00b"]]
    half = np.float16([[1.5, np.inf]])
    assert np.array_equal(client.predict("half", half)["y"], half)


def test_outputs_can_be_chosen(client, rows):
    assert list(client.predict("iris", rows, outputs=["label"])) == ["label"]


def test_a_version_can_be_named_by_number_or_ordinal(client, rows):
    for version in ("1.0.0", 1, "1"):
        assert client.predict("iris", rows[:1], version=version).model_version == "1.0.0"
    with pytest.raises(SalverError) as caught:
        client.predict("iris", rows[:1], version="1.0.0+x/..")
    assert caught.value.code == "NOT_FOUND"


def test_a_request_id_comes_back_with_answers_and_with_errors(client, rows):
    assert client.predict("iris", rows[:1], request_id="mine-1").request_id == "mine-1"
    assert client.predict("iris", rows[:1]).request_id
    with pytest.raises(SalverError) as caught:
        client.predict("iris", rows[:1, :1], request_id="mine-2")
    assert caught.value.__notes__ == ["request id mine-2"]


@pytest.mark.parametrize("bad", ["", "a\nb", "é", "x" * 129])
def test_a_request_id_that_no_header_can_carry_is_refused(client, rows, bad):
    with pytest.raises(SalverError) as caught:
        client.predict("iris", rows[:1], request_id=bad)
    assert caught.value.code == "INVALID_PARAMETER"


def test_values_unlike_the_training_data_bring_a_warning(client, rows):
    assert "X" in client.predict("iris", rows[:1] + 100).warnings[0]


def test_any_number_of_rows_come_as_one_answer(client, rows, onnx_models):
    many = np.concatenate([rows] * 10)
    with pytest.raises(SalverError) as caught:
        client.predict("iris", many)
    assert caught.value.code == "TOO_MANY_ROWS"
    label, probabilities = onnxruntime.InferenceSession(onnx_models["iris"]).run(None, {"X": many})
    told = []
    answer = client.predict_all(
        "iris", many, parallel=1, on_progress=lambda done, all_rows: told.append((done, all_rows))
    )
    assert np.array_equal(answer["label"], label)
    assert np.array_equal(answer["probabilities"], probabilities)
    assert told == [(256, 600), (512, 600), (600, 600)]
    assert (answer.endpoint, answer.model_version) == ("iris", "1.0.0")
    assert client.predict_all("iris", many.tolist())["label"].tolist() == label.tolist()
    assert list(client.predict_all("iris", many, outputs=iter(["label"]))) == ["label"]
    both = {"a": np.ones((600, 2), np.int32), "b": np.arange(1200, dtype=np.int32).reshape(600, 2)}
    assert np.array_equal(client.predict_all("sum", both)["y"], both["b"] + 1)
    assert len(client.predict_all("text", [["é", b"x"]] * 600)["y"]) == 600


def test_the_parts_are_as_small_as_asked_for_and_a_few_rows_are_one_request(client, rows):
    told = []
    client.predict_all("iris", rows, rows_per_request=25, parallel=1, on_progress=lambda *each: told.append(each))
    assert told == [(25, 60), (50, 60), (60, 60)]
    told.clear()
    client.predict_all("iris", rows, rows_per_request=7, parallel=3, on_progress=lambda *each: told.append(each))
    assert (len(told), told[-1]) == (9, (60, 60))
    assert told == sorted(told)
    assert client.predict_all("iris", rows[:1]).request_id
    assert client.predict_all("iris", rows, request_id="mine", rows_per_request=30).request_id == "mine"


def test_a_warning_of_a_part_says_which_rows_it_is_about(client, rows):
    odd = rows.copy()
    odd[[3, 40]] += 100
    answer = client.predict_all("iris", odd, rows_per_request=20)
    assert [warning.partition(":")[0] for warning in answer.warnings] == ["rows 0-19", "rows 40-59"]


@pytest.mark.parametrize(
    ("endpoint", "inputs", "code"),
    [
        ("nowhere", [[1.0], [2.0]], "NOT_FOUND"),
        ("iris", [[1.0], [2.0]], "WRONG_SHAPE"),
        ("iris", 5.0, "WRONG_SHAPE"),
        ("iris", np.empty((0, 3), np.float32), "WRONG_SHAPE"),
        ("sum", {"a": [[1, 2]] * 3, "b": [[1, 2]]}, "WRONG_SHAPE"),
        ("sum", {"a": [[1, 2]] * 3}, "MISSING_INPUT"),
    ],
)
def test_rows_that_do_not_come_apart_are_refused_as_one_request_would_be(client, endpoint, inputs, code):
    with pytest.raises(SalverError) as caught:
        client.predict_all(endpoint, inputs)
    assert caught.value.code == code


def test_the_rows_of_a_request_are_known(client):
    assert client.max_batch("iris") == 256


@pytest.mark.parametrize(
    ("endpoint", "inputs", "options", "code"),
    [
        ("nowhere", [[1.0]], {}, "NOT_FOUND"),
        ("../x", [[1.0]], {}, "INVALID_NAME"),
        ("iris", [[1.0]], {}, "WRONG_SHAPE"),
        ("iris", {"Z": [[1.0]]}, {}, "UNKNOWN_INPUT"),
        ("sum", {"a": [[1, 2]]}, {}, "MISSING_INPUT"),
        ("iris", [[1.0, 2.0, 3.0]], {"outputs": ["zzz"]}, "UNKNOWN_OUTPUT"),
        ("iris", [[1.0, 2.0, 3.0]], {"parameters": {"timeout": -1}}, "INVALID_PARAMETER"),
        ("iris", [[1.0, 2.0, 3.0]], {"timeout_s": 0}, "INVALID_SETTING"),
    ],
)
def test_errors_carry_their_code(client, endpoint, inputs, options, code):
    with pytest.raises(SalverError) as caught:
        client.predict(endpoint, inputs, **options)
    assert caught.value.code == code


def test_one_output_may_be_named_as_it_is(client):
    rows = [[1.0, 2.0, 3.0]] * 3
    name = client.metadata("iris").outputs[0].name
    for answer in (client.predict("iris", rows, outputs=name), client.predict_all("iris", rows, outputs=name)):
        assert list(answer) == [name]
        with pytest.raises(KeyError, match=f"no output 'nope'; there are '{name}'"):
            answer["nope"]
        assert answer.get("nope") is None


def test_metadata_and_models_describe_the_server(client):
    assert client.models() == ["half", "iris", "sum", "text"]
    described = client.metadata("sum")
    assert described.versions == ("1.0.0",)
    assert [(spec.name, spec.datatype, spec.shape) for spec in described.inputs] == [
        ("a", "INT32", (-1, 2)),
        ("b", "INT32", (-1, 2)),
    ]


def test_threads_share_one_client_and_each_gets_its_own_answer(root):
    words = [[f"word {number}", "x"] for number in range(100)]
    with Client(root) as client, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda row: client.predict("text", [row])["y"].tolist(), words))
    assert answers == [[[word.encode(), b"x"]] for word, _ in words]


def test_tasks_share_one_client_and_each_gets_its_own_answer(root):
    words = [[f"word {number}", "x"] for number in range(100)]

    async def main():
        async with AsyncClient(root, connections=8) as client:
            return await asyncio.gather(*(client.predict("text", [row]) for row in words))

    assert [answer["y"].tolist() for answer in asyncio.run(main())] == [[[word.encode(), b"x"]] for word, _ in words]


def test_an_answer_says_where_its_time_went_if_asked(client, rows):
    assert client.predict("iris", rows).timing is None
    timing = client.predict("iris", rows, timing=True).timing
    assert isinstance(timing, Timing)
    assert 0 < timing.compute_s <= timing.total_s < 10
    assert timing.batch_rows == 60
    assert timing.placement in ("inline", "thread", "process")


def test_priorities_are_taken(client, rows):
    assert len(client.predict("iris", rows, priority=1)["label"]) == 60
    with pytest.raises(SalverError) as caught:
        client.predict("iris", rows, priority=-1)
    assert caught.value.code == "INVALID_PARAMETER"


def test_an_endpoint_is_ready_or_not_there(client):
    assert client.is_ready()
    assert client.is_ready("iris")
    assert client.is_ready("iris", version="1.0.0")
    with pytest.raises(SalverError) as caught:
        client.is_ready("nowhere")
    assert caught.value.code == "NOT_FOUND"


def test_a_refusal_says_which_request_it_was_and_that_no_model_ran(client, rows):
    with pytest.raises(CallError) as caught:
        client.predict("iris", rows[:1, :1], request_id="mine-3")
    error = caught.value
    assert (error.code, error.request_id, error.retry_after_s) == ("WRONG_SHAPE", "mine-3", None)
    assert "shape" in error.message


def test_large_tensors_go_both_ways(client):
    large = [[b"x" * 4_000_000, "é" * 1_000_000]]
    assert client.predict("text", large)["y"].tolist() == [[large[0][0], large[0][1].encode()]]


def test_many_parts_come_back_in_their_order(client):
    large = np.arange(60_000, dtype=np.int32).reshape(-1, 2)
    answer = client.predict_all("sum", {"a": large, "b": large[::-1]}, parallel=8)
    assert np.array_equal(answer["y"], large + large[::-1])


def test_a_server_with_tls_and_tokens_answers_who_has_both(kind, wire, guarded):
    trust = ssl.create_default_context()
    guarded.authority.configure_trust(trust)
    pair = {"a": [[1, 2]], "b": [[3, 4]]}
    with kind(guarded.urls[wire], token=guarded.token, verify=trust) as client:
        assert client.predict("sum", pair)["y"].tolist() == [[4, 6]]
        assert client.predict("sum", {"a": [[1, 2]], "b": [[3, 5]]})["y"].tolist() == [[4, 7]]
    with kind(guarded.urls[wire], verify=trust) as client:
        assert client.is_ready()
        with pytest.raises(SalverError) as caught:
            client.predict("sum", pair)
    assert caught.value.code == "UNAUTHENTICATED"


def test_an_untrusted_certificate_is_named_as_the_reason(kind, wire, guarded):
    with kind(guarded.urls[wire], token=guarded.token) as client:
        for ask in (client.is_ready, client.models):
            with pytest.raises(SalverError, match="not trusted") as caught:
                ask()
            assert caught.value.code == "REFUSED_BY_POLICY"


def test_certificates_are_not_checked_by_who_says_so(kind, guarded):
    with kind(guarded.urls["http"], token=guarded.token, verify=False) as client:
        assert client.models() == ["sum"]


@pytest.mark.parametrize("verify", [None, "", 0, 1, "tls.crt"])
def test_nothing_but_false_turns_certificates_off(kind, wire, verify):
    for url in (f"{wire}://127.0.0.1:1", f"{wire}s://127.0.0.1:1"):
        with pytest.raises(SalverError, match="verify is") as caught:
            kind(url, verify=verify)
        assert caught.value.code == "INVALID_SETTING"


@pytest.mark.parametrize("verify", [False, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)])
def test_grpc_refuses_what_it_cannot_check(kind, guarded, verify):
    with pytest.raises(SalverError, match="always checks") as caught:
        kind(guarded.urls["grpc"], verify=verify)
    assert caught.value.code == "INVALID_SETTING"


def test_nobody_there_is_not_ready(kind, wire):
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    with kind(f"{wire}://127.0.0.1:{port}") as client:
        assert not client.is_ready()
        with pytest.raises(CallError, match="cannot be reached") as caught:
            client.models()
        assert (caught.value.code, caught.value.may_have_run) == ("NOT_READY", False)


def test_a_silent_server_runs_into_the_timeout(kind, wire):
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        kind(f"{wire}://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.05) as client,
    ):
        with pytest.raises(SalverError) as caught:
            client.models()
        assert caught.value.code == "DEADLINE_EXCEEDED"
        assert not client.is_ready()


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "127.0.0.1:8080",
            "ftp://x",
            "http://",
            "http://me:secret@x",
            "http://[",
            7,
            "http://x:0",
            "http://x:99999",
        ),
        *("http://x y", "http://x\n", "http://x?y=1", "http://x#y", "grpc://x/prefix", "http://%41", "http://x/\u00e9"),
    ],
)
def test_what_is_no_url_is_refused(kind, url):
    with pytest.raises(SalverError) as caught:
        kind(url)
    assert caught.value.code == "INVALID_SETTING"


@pytest.mark.parametrize("token", ["", " a", "a\r\nx: y", "é"])
def test_what_is_no_token_is_refused(token):
    with pytest.raises(SalverError) as caught:
        Client("http://127.0.0.1:1", token=token)
    assert caught.value.code == "INVALID_SETTING"
