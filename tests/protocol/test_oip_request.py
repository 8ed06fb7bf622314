from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.protocol.codecs.oip_request import decode_json, decode_with_binary
from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError
from salver.protocol.request import RequestedOutput

MOST = 10**6
INTEGERS = [name for name in DATATYPES if "INT" in name]
IN_JSON = [name for name in DATATYPES if DATATYPES[name].json_type is not None]


def body(data: str = "[1]", *, shape: str = "[1]", datatype: str = "FP32", name: str = '"x"', more: str = "") -> bytes:
    return f'{{"inputs":[{{"name":{name},"shape":{shape},"datatype":"{datatype}","data":{data}}}]{more}}}'.encode()


def decoded(content: bytes) -> np.ndarray[Any, Any]:
    (tensor,) = decode_json(content, MOST).inputs.values()
    return tensor.numpy()


def refused(content: bytes, most: int = MOST, json_bytes: int | None = None) -> SalverError:
    with pytest.raises(SalverError) as raised:
        decode_json(content, most) if json_bytes is None else decode_with_binary(content, json_bytes, most)
    assert raised.value.http in (400, 501)
    assert len(str(raised.value)) < 1000
    return raised.value


VALUES = {
    "BOOL": [[True, False, True], [False, False, True]],
    **{name: [[0, 1, 2], [3, 4, 5]] for name in INTEGERS},
    "FP32": [[0, -1.5, 2e3], [0.1, 1e-30, -0.0]],
    "FP64": [[0, -1.5, 2e300], [0.1, 1e-300, -0.0]],
    "BYTES": [["", "a:b", "ü"], ['"', "\\", "\u0000"]],
}


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("datatype", IN_JSON)
def test_nested_and_flat_data_are_the_same_numbers(datatype: str, nested: bool) -> None:
    values = VALUES[datatype]
    data = json.dumps(values if nested else values[0] + values[1])
    expected: Any = [[one.encode() for one in row] for row in values] if datatype == "BYTES" else values
    array = decoded(body(data, shape="[2,3]", datatype=datatype))
    np.testing.assert_array_equal(array, np.array(expected, dtype=DATATYPES[datatype].dtype))


@pytest.mark.parametrize("count", [1, 4096, 4097])
@pytest.mark.parametrize("datatype", INTEGERS)
def test_the_borders_of_integers_fit_and_one_beyond_does_not(datatype: str, count: int) -> None:
    limits = np.iinfo(DATATYPES[datatype].dtype)
    rest = ",0" * (count - 1)
    for value in (int(limits.min), int(limits.max)):
        assert decoded(body(f"[{value}{rest}]", shape=f"[{count}]", datatype=datatype))[0] == value
    for value in (int(limits.min) - 1, int(limits.max) + 1, 10**30, -(10**30)):
        error = refused(body(f"[{value}{rest}]", shape=f"[{count}]", datatype=datatype))
        assert error.code == "INVALID_VALUE"
        assert str(value) in str(error)


@pytest.mark.parametrize("count", [1, 5000])
def test_numbers_beyond_the_range_of_a_float_are_refused(count: int) -> None:
    rest = ",0" * (count - 1)
    for value, datatype in [("1e39", "FP32"), ("-3.5e38", "FP32"), ("1e400", "FP64"), ("9" * 400, "FP64")]:
        assert refused(body(f"[{value}{rest}]", shape=f"[{count}]", datatype=datatype)).code == "INVALID_VALUE"


WRONG_KINDS = [
    *[(name, value) for name in (*INTEGERS, "FP32", "FP64") for value in ('"1"', "true", "null", "{}")],
    *[(name, value) for name in INTEGERS for value in ("1.5", "1.0", "1e0", '"0x1"')],
    *[("BOOL", value) for value in ("0", "1", '"true"', "null", "1.0")],
    *[("BYTES", value) for value in ("1", "true", "null", "1.5", "{}")],
]


@pytest.mark.parametrize(("datatype", "value"), WRONG_KINDS)
@pytest.mark.parametrize("form", ["[{0}]", "[[{0}]]", "{0}"])
def test_nothing_is_silently_converted(datatype: str, value: str, form: str) -> None:
    shape = "[1,1]" if form.startswith("[[") else "[1]"
    error = refused(body(form.format(value), shape=shape, datatype=datatype))
    assert error.code == "INVALID_VALUE"
    assert "input 'x'" in error.message


def test_one_wrong_value_among_many_is_refused() -> None:
    assert refused(body("[1,2,3.0,4]", shape="[4]", datatype="INT32")).code == "INVALID_VALUE"
    assert decoded(body("[1,2.5,3]", shape="[3]")).tolist() == [1, 2.5, 3]


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "nan", "+1", "01", ".5", "0x1", "1_000", "'a'"])
def test_tokens_that_are_no_json_are_refused(token: str) -> None:
    assert refused(body(f"[{token}]")).code in ("INVALID_JSON", "INVALID_VALUE")


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_datatypes_that_json_cannot_carry_say_so(datatype: str) -> None:
    error = refused(body(datatype=datatype))
    assert (error.code, error.remedy) == ("WRONG_DATATYPE", "send it as binary data")


@pytest.mark.parametrize("datatype", ["fp32", "INT", "", "STRING", "FP128"])
def test_unknown_datatypes_are_answered_with_the_known_ones(datatype: str) -> None:
    error = refused(body(datatype=datatype))
    assert error.code == "WRONG_DATATYPE"
    assert "BF16" in error.remedy


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        ("[[1,2],[3]]", "[2,2]"),
        ("[[1],[2,3,4]]", "[2,2]"),
        ("[[1,2,3],[4,5,6]]", "[3,2]"),
        ("[[1,2]]", "[2,1]"),
        ("[[[1]],[[2]]]", "[2,2,1]"),
        ("[1,2,3]", "[2,2]"),
        ("[]", "[1]"),
        ("[[]]", "[1,1]"),
        ("[1]", "[0]"),
    ],
)
def test_data_of_another_shape_than_claimed_are_refused(data: str, shape: str) -> None:
    error = refused(body(data, shape=shape))
    assert error.code == "WRONG_SHAPE"
    assert "input 'x'" in error.message


@pytest.mark.parametrize(
    "data", ["[[1],2]", "[[[1]],[2]]", "[[[[1]]]]", "[[1,[2]]]", '{"0":1}', '"12"', "1", "true", "[" * 40 + "]" * 40]
)
def test_mis_nested_data_are_refused(data: str) -> None:
    assert refused(body(data, shape="[2,1]")).code in ("INVALID_VALUE", "WRONG_SHAPE")


@pytest.mark.parametrize("shape", ["[0]", "[0,4]", "[2,0]", "[0,0]"])
def test_empty_tensors_are_tensors(shape: str) -> None:
    assert decoded(body("[]", shape=shape)).shape == tuple(json.loads(shape))


def test_a_tensor_of_rank_zero_has_one_element() -> None:
    assert decoded(body("[2.5]", shape="[]")) == 2.5


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ("[-1]", "dimension -1"),
        ("[4611686018427387905,4]", "dimension 4611686018427387905"),
        ("[1000,1001]", "has 1001000 elements; at most 1000000"),
        (f"[{'9' * 4000}]", "dimension about 2**"),
        (f"[{','.join(['1'] * 17)}]", "rank 17"),
    ],
)
def test_impossible_shapes_are_refused_before_the_data_are_read(shape: str, says: str) -> None:
    error = refused(body("[1]", shape=shape))
    assert error.code == "INVALID_TENSOR"
    assert says in error.message


@pytest.mark.parametrize(
    "shape", ["[1.0]", '["1"]', "[true]", "[null]", "1", "null", '"1"', "[[1]]", f"[{'9' * 5000}]"]
)
def test_shapes_are_lists_of_integers(shape: str) -> None:
    assert refused(body(shape=shape)).code == "INVALID_JSON"


# Keys.


DUPLICATES = {
    "request": '{"inputs":[],"inputs":[]}',
    "id": '{"id":"a","id":"a","inputs":[]}',
    "escaped": '{"inputs":[],"i\\u006eputs":[]}',
    "tensor": '{"inputs":[{"name":"x","shape":[1],"shape":[1],"datatype":"FP32","data":[1]}]}',
    "tensor data": '{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1],"data":[2]}]}',
    "tensor escaped": '{"inputs":[{"name":"x","sh\\u0061pe":[1],"shape":[1],"datatype":"FP32","data":[1]}]}',
    "parameters": '{"inputs":[],"parameters":{"a":1,"a":1}}',
    "parameters escaped": '{"inputs":[],"parameters":{"a":1,"\\u0061":1}}',
    "tensor parameters": (
        '{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1],"parameters":{"k":1,"k":2}}]}'
    ),
    "output": '{"inputs":[],"outputs":[{"name":"y","name":"z"}]}',
    "output parameters": '{"inputs":[],"outputs":[{"name":"y","parameters":{"binary_data":true,"binary_data":false}}]}',
    "unknown": '{"inputs":[],"extra":1,"extra":2}',
    "inside unknown": '{"inputs":[],"extra":{"a":1,"a":2}}',
}


@pytest.mark.parametrize("content", DUPLICATES.values(), ids=DUPLICATES.keys())
def test_a_key_that_stands_twice_is_refused(content: str) -> None:
    error = refused(content.encode())
    assert error.code == "DUPLICATE_KEY"
    assert "stands twice" in error.message


def test_colons_in_strings_and_unknown_keys_are_fine() -> None:
    content = body(
        '["a:b","::"]',
        shape="[2]",
        datatype="BYTES",
        name='"x:y"',
        more=',"id":"i:j","extra":{"a":{"b":1}},"z":[1e5,-2]',
    )
    found = decode_json(content, MOST)
    assert found.inputs["x:y"].numpy().tolist() == [b"a:b", b"::"]
    assert found.id == "i:j"


def test_whitespace_and_order_of_keys_do_not_matter() -> None:
    content = b' {"outputs" : [ ] ,\n"inputs":[{"data" :[1] ,"datatype":"FP32","shape":[ 1 ],"name":"x"}] }\r\n'
    found = decode_json(content, MOST)
    assert found.inputs["x"].numpy().tolist() == [1]
    assert found.outputs is None


def test_parameters_and_id_are_handed_on() -> None:
    found = decode_json(body(more=',"id":"a\\"b","parameters":{"a":1,"b":1.5,"c":"x","d":true}'), MOST)
    assert (found.id, found.parameters) == ('a"b', {"a": 1, "b": 1.5, "c": "x", "d": True})
    plain = decode_json(body(), MOST)
    assert (plain.id, plain.parameters, plain.outputs) == (None, None, None)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{}",
        b'{"inputs":null}',
        b'{"inputs":{}}',
        b'{"inputs":[1]}',
        b'{"inputs":[{}]}',
        b'{"inputs":[{"name":1,"shape":[1],"datatype":"FP32","data":[1]}]}',
        b'{"inputs":[],"id":1}',
        b'{"inputs":[],"id":null}',
        b'{"inputs":[],"parameters":[]}',
        b'{"inputs":[],"parameters":{"a":null}}',
        b'{"inputs":[],"parameters":{"a":[1]}}',
        b'{"inputs":[],"outputs":{}}',
        b'{"inputs":[]',
        b'{"inputs":[]}}',
        b'{"inputs":[]} x',
        b'{"inputs":[],}',
        b"\xef\xbb\xbf" + b'{"inputs":[]}',
        '{"inputs":[]}'.encode("utf-16"),
        b'{"inputs":[],"id":"\xff"}',
        b'{"inputs":[],"id":"\\ud800"}',
        b'{"inputs":[],"id":"\\udc00\\ud800x"}',
        b'{"inputs":[],"id":"a\x00b"}',
        b'{"inputs":[],"\xff":1}',
    ],
)
def test_what_is_no_inference_request_is_refused(content: bytes) -> None:
    assert refused(content).code == "INVALID_JSON"


@pytest.mark.parametrize("value", ['"\\ud800"', '"x\\udfff"', '"\\ud800\\ud800"'])
def test_lone_surrogates_are_refused_in_data_too(value: str) -> None:
    assert refused(body(f"[{value}]", datatype="BYTES")).code in ("INVALID_JSON", "INVALID_VALUE")


@pytest.mark.parametrize("depth", [*range(900, 1010), 250_000])
def test_json_that_is_nested_deeply_is_refused_or_read_never_a_fault(depth: int) -> None:
    nest = "[" * depth + "]" * depth
    for content in (f'{{"inputs":[],"x":{nest}}}', f'{{"inputs":[],"x:":{nest}}}', body(nest).decode()):
        try:
            decode_json(content.encode(), MOST)
        except SalverError as error:
            assert error.http == 400
    if depth == 250_000:
        assert refused(body(nest)).code == "INVALID_JSON"


@pytest.mark.parametrize(
    "where", ['"data":[{0}],"name":"a:b"', '"data":[1],"name":"a:b","k":{0}', '"data":[{0}],"name":"ab"']
)
@pytest.mark.parametrize("number", ["9" * 5000, "9" * 5000 + ".5", "1e" + "9" * 5000])
def test_numbers_of_thousands_of_digits_are_no_fault(where: str, number: str) -> None:
    content = '{"inputs":[{"shape":[1],"datatype":"INT64",' + where.replace("{0}", number) + "}]}"
    try:
        decode_json(content.encode(), MOST)
    except SalverError as error:
        assert error.http == 400
        assert len(str(error)) < 500


def test_an_error_repeats_little_of_what_a_client_sent() -> None:
    long = "n" * 100_000
    for content in (
        body(name=json.dumps(long)),
        body(datatype=long),
        body(more=f',"parameters":{{"binary_data_output":"{long}"}}'),
        body(more=f',"outputs":[{{"name":"{long}","parameters":{{"classification":"{long}"}}}}]'),
        f'{{"inputs":[],"{long}":1,"{long}":2}}'.encode(),
    ):
        refused(content)


def test_an_input_given_twice_and_an_input_without_data_are_refused() -> None:
    tensor = '{"name":"x","shape":[1],"datatype":"FP32","data":[1]}'
    assert refused(f'{{"inputs":[{tensor},{tensor}]}}'.encode()).message == "an input is given twice"
    assert "has no data" in refused(b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32"}]}').message


def test_shared_memory_is_not_offered() -> None:
    shared = '{"name":"x","shape":[1],"datatype":"FP32","parameters":{"shared_memory_region":"r"}}'
    assert refused(f'{{"inputs":[{shared}]}}'.encode()).code == "UNSUPPORTED"
    output = ',"outputs":[{"name":"y","parameters":{"shared_memory_region":"r"}}]'
    assert refused(body(more=output)).code == "UNSUPPORTED"


# Requested outputs.


def test_requested_outputs_are_read() -> None:
    more = ',"outputs":[{"name":"a"},{"name":"b","parameters":{"binary_data":true}},'
    more += '{"name":"c","parameters":{"classification":3,"binary_data":false}}]'
    assert decode_json(body(more=more), MOST).outputs == (
        RequestedOutput("a"),
        RequestedOutput("b", binary=True),
        RequestedOutput("c", binary=False, classification=3),
    )


@pytest.mark.parametrize(
    "parameters",
    [
        '{"binary_data":1}',
        '{"binary_data":"true"}',
        '{"classification":-1}',
        '{"classification":true}',
        '{"classification":1.5}',
        '{"classification":"3"}',
    ],
)
def test_parameters_of_outputs_are_of_their_kind(parameters: str) -> None:
    assert refused(body(more=f',"outputs":[{{"name":"y","parameters":{parameters}}}]')).code == "INVALID_PARAMETER"


def test_an_output_requested_twice_is_refused() -> None:
    assert "twice" in refused(body(more=',"outputs":[{"name":"y"},{"name":"y"}]')).message


@pytest.mark.parametrize("value", ["1", '"true"', "0.0"])
def test_binary_data_output_is_true_or_false(value: str) -> None:
    assert refused(body(more=f',"parameters":{{"binary_data_output":{value}}}')).code == "INVALID_PARAMETER"


@given(st.binary(max_size=200))
def test_no_bytes_are_a_fault(content: bytes) -> None:
    for json_bytes in (None, 0, len(content) // 2, len(content)):
        try:
            decode_json(content, MOST) if json_bytes is None else decode_with_binary(content, json_bytes, MOST)
        except SalverError as error:
            assert error.http == 400


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["inputs", "name", "shape", "datatype", "data", "parameters", "outputs", "id", "x"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=20,
    )
)
def test_no_json_is_a_fault(value: object) -> None:
    try:
        decode_json(json.dumps(value).encode(), MOST)
    except SalverError as error:
        assert error.http == 400
