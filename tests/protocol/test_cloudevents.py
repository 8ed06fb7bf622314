"""CloudEvents as KServe takes and gives them."""

from __future__ import annotations

import json

import pytest

from salver.protocol.codecs.cloudevents import Event, data_of, is_binary, is_structured
from salver.protocol.errors import SalverError

EVENT = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {"instances": [1]}}
ANSWER = Event("7", "digits", 1_700_000_000.25)


def test_a_structured_event_holds_its_data_and_its_attributes() -> None:
    assert json.loads(ANSWER.structured(b'{"predictions":[1]}')) == {
        "specversion": "1.0",
        "id": "7",
        "source": "io.kserve.inference.digits",
        "type": "io.kserve.inference.response",
        "time": "2023-11-14T22:13:20.250000Z",
        "datacontenttype": "application/json",
        "data": {"predictions": [1]},
    }


def test_a_binary_event_has_its_attributes_in_headers() -> None:
    assert dict(ANSWER.headers()) == {
        b"ce-specversion": b"1.0",
        b"ce-id": b"7",
        b"ce-source": b"io.kserve.inference.digits",
        b"ce-type": b"io.kserve.inference.response",
        b"ce-time": b"2023-11-14T22:13:20.250000Z",
    }


def test_the_data_of_an_event_may_hold_tokens() -> None:
    body = json.dumps({**EVENT, "data": {"instances": [float("inf")]}}).encode()
    assert data_of(body) == {"instances": [float("inf")]}


@pytest.mark.parametrize("missing", ["specversion", "id", "source", "type", "data"])
def test_an_event_has_all_its_attributes(missing: str) -> None:
    body = json.dumps({name: value for name, value in EVENT.items() if name != missing}).encode()
    with pytest.raises(SalverError, match=missing):
        data_of(body)


@pytest.mark.parametrize(
    ("content_type", "structured"),
    [
        (b"application/cloudevents+json", True),
        (b"Application/CloudEvents+JSON ; charset=UTF-8", True),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_the_media_type_says_whether_an_event_is_structured(content_type: bytes, structured: bool) -> None:
    assert is_structured(content_type) is structured


def test_other_forms_of_events_are_refused() -> None:
    for other in (b"application/cloudevents-batch+json", b"application/cloudevents+avro", b"application/cloudevents"):
        with pytest.raises(SalverError, match="not understood"):
            is_structured(other)


def test_only_all_four_attributes_make_a_binary_event() -> None:
    headers = {f"ce-{name}".encode(): str(EVENT[name]).encode() for name in ("specversion", "id", "source", "type")}
    assert is_binary(headers)
    for missing in headers:
        assert not is_binary({name: value for name, value in headers.items() if name != missing})
    with pytest.raises(SalverError, match="specversion is '2'"):
        is_binary({**headers, b"ce-specversion": b"2"})
