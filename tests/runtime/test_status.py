"""What several server processes say, as one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from salver.runtime.status import EndpointStatus, LoadState, ProcessState, ProcessStatus, merge_endpoints

ROW = EndpointStatus(
    "e", LoadState.READY, True, "m@1.0.0", "m@1.0.0", True, None, None, "inline", 1, 2, 1, (7,), 1, 5, {"1": 0.1}
)
FAILED: dict[str, Any] = {"state": LoadState.FAILED, "code": "LOAD_FAILED", "problem": "it is broken"}


def process(slot: int, *changes: dict[str, Any]) -> ProcessStatus:
    rows = tuple(msgspec.structs.replace(ROW, **change) for change in changes)
    return ProcessStatus(slot, 100 + slot, ProcessState.SERVING, 3, rows)


ABSENT = ProcessStatus(1, 0, ProcessState.ABSENT)


def test_one_process_is_told_as_it_is() -> None:
    assert merge_endpoints([process(0, {})]) == (ROW,)
    assert merge_endpoints([ABSENT]) == ()


def test_what_each_has_adds() -> None:
    (both,) = merge_endpoints([process(0, {}), process(1, {"workers": (8, 9), "placement": "process+thread"})])
    assert (both.replicas, both.waiting, both.running, both.restarts, both.workers) == (2, 4, 2, 2, (7, 8, 9))
    assert (both.state, both.available, both.placement, both.generation) == (
        LoadState.READY,
        True,
        "inline+process+thread",
        5,
    )


@pytest.mark.parametrize(
    ("rows", "state", "generation"),
    [
        # Both have come to the same generation.
        ([{}, {}], LoadState.READY, 5),
        # One still serves what was before, and is ready with that: the new one is not reached.
        ([{"generation": 6, "wanted": "m@2.0.0"}, {}], LoadState.LOADING, 0),
        ([{"generation": 6}, {}], LoadState.READY, 5),
        ([{"state": LoadState.LOADING, "generation": 4}, {}], LoadState.LOADING, 4),
        # One has failed: that is told at once, whatever the other still does.
        ([FAILED, {}], LoadState.FAILED, 5),
        ([FAILED, {"state": LoadState.LOADING, "generation": 4}], LoadState.FAILED, 4),
        # One knows nothing of it yet.
        ([{}, None], LoadState.LOADING, 0),
        ([{"state": LoadState.COLD}, {"state": LoadState.COLD}], LoadState.COLD, 5),
        ([{"state": LoadState.COLD}, {}], LoadState.READY, 5),
    ],
)
def test_an_endpoint_is_where_the_last_process_is(rows, state, generation) -> None:
    processes = [process(slot, *([row] if row is not None else [])) for slot, row in enumerate(rows)]
    (merged,) = merge_endpoints(processes)
    assert (merged.state, merged.generation) == (state, generation)
    assert (merged.code is None) is (state is not LoadState.FAILED)


def test_a_process_that_does_not_answer_has_reached_nothing() -> None:
    (merged,) = merge_endpoints([process(0, {}), ABSENT])
    assert (merged.state, merged.generation, merged.available) == (LoadState.LOADING, 0, True)
