"""Jobs as values: ids, views, and a diagram that says what the table says."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.protocol import jobs
from salver.protocol.errors import SalverError
from salver.protocol.jobs import FINAL, TRANSITIONS, Delivery, Job, JobState, backoff_s, parse_id, view_of

ID = bytes(range(16))


def make_job(**changes):
    fields = {
        "id": ID,
        "tenant": "acme",
        "endpoint": "digits",
        "version": "",
        "state": JobState.DONE,
        "attempts": 1,
        "bytes": 10,
        "accepted_s": 1.0,
        "started_s": 2.0,
        "ended_s": 3.0,
        "expires_s": 4.0,
        "code": None,
        "message": None,
        "webhook": "",
        "delivery": Delivery.NONE,
        "deliveries": 0,
        "delivery_note": None,
    }
    return Job(**fields | changes)


def test_the_diagram_names_every_state():
    drawn = set(re.findall(r"\b[A-Z]{4,}\b", jobs.__doc__))
    assert drawn == {state.name for state in JobState}


def test_every_state_leads_to_an_end_and_none_leads_back_from_one():
    assert TRANSITIONS.keys() == set(JobState)
    for state in FINAL:
        assert TRANSITIONS[state] <= {JobState.EXPIRED}
    assert JobState.QUEUED in TRANSITIONS[JobState.RUNNING]


@given(st.integers(1, 10_000), st.binary(min_size=16, max_size=16))
def test_a_pause_lies_in_the_upper_half_of_a_doubled_one_that_is_bounded(failures, name):
    whole_s = min(2.0 ** (failures - 1), 60.0) if failures < 30 else 60.0
    assert whole_s / 2 <= backoff_s(1.0, 60.0, failures, name) <= whole_s


def test_an_id_is_read_as_it_was_written():
    assert parse_id(ID.hex()) == ID


@pytest.mark.parametrize(
    "text",
    ["", "0", ID.hex()[:-1], ID.hex() + "0", ID.hex().upper(), "g" * 32, " " * 32, "é" * 32, "٣" * 32, "../" * 11],
)
def test_what_is_no_id_is_no_job(text):
    with pytest.raises(SalverError) as raised:
        parse_id(text)
    assert raised.value.code == "NOT_FOUND"


def test_a_view_says_where_the_result_is_only_when_there_is_one():
    assert view_of(make_job()).result_url == f"/v2/jobs/{ID.hex()}/result"
    assert view_of(make_job(state=JobState.RUNNING)).result_url is None


def test_a_view_shows_the_error_and_the_webhook():
    view = view_of(
        make_job(
            state=JobState.FAILED,
            code="MODEL_ERROR",
            message="it raised",
            webhook="orders",
            delivery=Delivery.PENDING,
            deliveries=2,
            delivery_note="it answered 500",
        )
    )
    assert (view.error.code, view.error.message) == ("MODEL_ERROR", "it raised")
    assert (view.webhook.name, view.webhook.state, view.webhook.attempts) == ("orders", "pending", 2)
    assert view.webhook.note == "it answered 500"
