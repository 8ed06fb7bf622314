"""A version that computes in a worker is tried there before it serves, if it may be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.workers import Serving, serving

from salver.clock import SYSTEM_CLOCK
from salver.protocol.errors import SalverError
from salver.protocol.profile import FeatureProfile, InputProfile, Profile
from salver.protocol.tables import VersionManifest
from salver.testing import SIGNATURE, eventually


@pytest.fixture
def diary(tmp_path) -> Path:
    return tmp_path / "diary"


def writing(store: Any, diary: Path, body: str = "", **changes: Any) -> VersionManifest:
    """A model that notes the rows of each batch and their first value."""
    note = f"with open({str(diary)!r}, 'a') as file: print(len(x), x[0, 0], file=file)\n"
    return store.python(note + body, signature=SIGNATURE, **changes)


def notes(diary: Path) -> list[tuple[int, float]]:
    lines = diary.read_text().splitlines() if diary.exists() else []
    return [(int(rows), float(value)) for rows, value in map(str.split, lines)]


async def test_a_worker_tries_growing_batches_before_it_serves_and_tells_what_they_took(store, diary) -> None:
    async with serving(store, writing(store, diary, warm_up=True), max_batch=4) as one:
        assert notes(diary) == [(1, 0.0)] * 5 + [(2, 0.0)] * 5 + [(4, 0.0)] * 5
        assert one.pool.curve.points().keys() == {1, 2, 4}
        assert one.pool.curve.longest_s >= max(one.pool.curve.points().values()) > 0
        assert one.pool.hang_limit_s(1) < one.pool.spec.deadline_s, "a hang is known before anybody asks"


async def test_users_code_is_given_nothing_that_nobody_sent_unless_it_says_so(store, diary) -> None:
    async with serving(store, writing(store, diary)) as one:
        assert (notes(diary), one.pool.curve.points()) == ([], {})
        assert await one.answer(3) == 7


async def test_with_a_profile_users_code_is_tried_with_the_training_means(store, diary) -> None:
    known = Profile((InputProfile("x", 9, (FeatureProfile(0, 9, 4.5, 1, 0),) * 2),))
    async with serving(store, writing(store, diary, profile=known), max_batch=1):
        assert notes(diary) == [(1, 4.5)] * 5


async def test_a_model_that_raises_on_invented_rows_serves_all_the_same_and_the_log_says_so(
    store, diary, caplog
) -> None:
    body = "if (x == 0).all(): raise ValueError('zeros are no image')"
    with caplog.at_level("INFO", logger="salver"):
        async with serving(store, writing(store, diary, body, warm_up=True)) as one:
            assert len(notes(diary)) == 1
            assert await one.answer(3) == 7
    (told,) = [record for record in caplog.records if record.getMessage() == "warm_up_ended"]
    assert told.fields["problem"].startswith("on 1 invented rows: ValueError: zeros are no image (model.py:")


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("return {'y': x.astype(np.float64)}", "BAD_MODEL_OUTPUT", "is float64, declared FP32"),
        ("os.abort()", "LOAD_FAILED", "signal SIGABRT"),
    ],
)
async def test_a_version_that_cannot_serve_is_refused_before_it_does(store, diary, body, code, message) -> None:
    one = Serving(store, writing(store, diary, body, warm_up=True), SYSTEM_CLOCK, 10.0)
    with pytest.raises(SalverError, match=message) as raised:
        await one.replica.launch()
    assert raised.value.code == code
    assert list(store.scratch.iterdir()) == []


async def test_a_new_worker_is_tried_again_and_what_was_learnt_stays(store, diary) -> None:
    async with serving(store, writing(store, diary, warm_up=True), max_batch=2) as one:
        assert len(notes(diary)) == 10
        for _ in range(50):
            one.pool.curve.observe(1, 7.0)
        learnt = one.pool.curve.freeze()
        assert learnt.points[1] > 0.01
        os.kill(one.pid, signal.SIGKILL)
        await eventually(lambda: one.replica.restarts == 1 and one.replica.pid)
        assert len(notes(diary)) == 20
        assert one.pool.curve.freeze() == learnt


def test_a_worker_whose_server_died_before_it_began_ends_at_once() -> None:
    other = os.getppid()
    command = [sys.executable, "-m", "salver.runtime.worker", "0", "0", "0", str(other)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (1, b"")
