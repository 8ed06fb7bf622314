from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

from salver.protocol.codecs.oip_response import ResponseEncoder
from salver.protocol.request import BatchOutputs, CacheWish, Request, Response
from salver.protocol.signature import TensorSpec
from salver.protocol.tables import Nonfinite
from salver.runtime.kept import KeptAnswers
from salver.telemetry.metrics import CacheCounts

ANY = CacheWish()
ONE_BYTES = 1024 + 192 + 2 * 16 + 8
"""What an answer of one row of two FP32 takes, before anything is encoded."""


def response(*rows: float, start: int = 0, **changes: object) -> Response:
    """The answer to one row of a batch of these rows, each with a value twice."""
    batch = BatchOutputs({"y": np.array([[row, row] for row in rows], np.float32)}, len(rows), 0.5, "thread")
    made = Response("m", "1.0.0", batch, start, start + 1)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.fixture
def counts() -> CacheCounts:
    return CacheCounts()


@pytest.fixture
def answers(counts: CacheCounts) -> KeptAnswers:
    return KeptAnswers(3 * ONE_BYTES, 10.0, counts)


def encode(kept: Response) -> bytes:
    encoder = ResponseEncoder("m", "m", "1.0.0", {"y": TensorSpec("y", "FP32", (-1, 2))}, Nonfinite.ERROR)
    return encoder.encode(Request("m", {}), kept)[0]


def test_what_is_kept_are_a_requests_own_rows_and_not_the_batch_they_were_cut_from(answers: KeptAnswers) -> None:
    given = response(1, 2, 3, start=1, warnings=("odd",), queue_s=0.25)
    note = answers.keep(b"k", given, 5.0)
    kept = answers.find(b"k", ANY, 6.0)
    assert kept is not None
    array = kept.batch.arrays["y"]
    assert kept.array("y").tolist() == array.tolist() == [[2, 2]]
    assert array.base is None, "it holds no other array"
    assert (array.flags.writeable, kept.batch.rows) == (False, 1)
    assert (kept.warnings, kept.queue_s, kept.batch.compute_s) == (("odd",), 0.0, 0.0)
    assert (note.source, note.since_s, note.ttl_s) == ("miss", 5.0, 10.0)
    assert kept.cache == note._replace(source="hit")


def test_an_answer_without_a_batch_dimension_is_kept_whole(answers: KeptAnswers) -> None:
    batch = BatchOutputs({"y": np.arange(6.0).reshape(2, 3)})
    answers.keep(b"k", Response("m", "1.0.0", batch, 0, None), 0.0)
    kept = answers.find(b"k", ANY, 1.0)
    assert kept is not None
    assert kept.stop is None
    assert kept.array("y").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_what_was_used_longest_ago_makes_room(answers: KeptAnswers, counts: CacheCounts) -> None:
    for key in (b"a", b"b", b"c"):
        answers.keep(key, response(1), 0.0)
    assert (answers.size_bytes, counts.evictions) == (3 * ONE_BYTES, 0)
    assert answers.find(b"a", ANY, 1.0) is not None
    answers.keep(b"d", response(1), 1.0)
    assert [answers.find(key, ANY, 1.0) is not None for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    assert (len(answers), answers.size_bytes, counts.evictions) == (3, 3 * ONE_BYTES, 1)


def test_an_answer_that_alone_takes_more_than_all_may_pushes_nothing_out(
    answers: KeptAnswers, counts: CacheCounts
) -> None:
    answers.keep(b"a", response(1), 0.0)
    large = Response("m", "1.0.0", BatchOutputs({"y": np.zeros((1, 4096), np.float32)}), 0, 1)
    assert answers.keep(b"b", large, 0.0).tag == ""
    assert (len(answers), answers.size_bytes, counts.evictions) == (1, ONE_BYTES, 0)


def test_nothing_is_given_once_its_time_is_over_and_that_is_no_eviction(
    answers: KeptAnswers, counts: CacheCounts
) -> None:
    answers.keep(b"a", response(1), 0.0)
    assert answers.find(b"a", ANY, 9.999) is not None
    assert answers.find(b"a", ANY, 10.0) is None
    assert (len(answers), answers.size_bytes) == (0, 0)
    answers.keep(b"b", response(1), 20.0)
    answers.keep(b"c", response(1), 31.0)
    assert (len(answers), counts.evictions) == (1, 0), "what is over goes when something comes"


def test_a_client_may_want_younger_answers_than_there_are(answers: KeptAnswers) -> None:
    answers.keep(b"a", response(1), 0.0)
    assert answers.find(b"a", CacheWish(max_age_s=4.0), 4.0) is not None
    assert answers.find(b"a", CacheWish(max_age_s=4.0), 4.5) is None
    assert answers.find(b"a", CacheWish(min_fresh_s=6.0), 4.0) is not None
    assert answers.find(b"a", CacheWish(min_fresh_s=6.0), 4.5) is None
    assert answers.find(b"a", ANY, 4.5) is not None, "for others it is there still"


def test_encodings_are_made_once_and_count(answers: KeptAnswers) -> None:
    answers.keep(b"a", response(1, 2, start=1), 0.0)
    kept = answers.find(b"a", ANY, 0.0)
    assert kept is not None
    assert b'"data":[2.0,2.0]' in encode(kept)
    grown = answers.size_bytes
    assert grown > ONE_BYTES
    encodings = dict(kept.batch.codec_cache)
    encode(kept)
    assert answers.size_bytes == grown
    assert all(kept.batch.codec_cache[name] is encodings[name] for name in encodings)
    kept.batch.codec_cache["large"] = [b"x" * 100, None, (b"y" * 200,)]
    assert answers.size_bytes > grown + 300
    kept.batch.codec_cache["large"] = b""
    assert grown < answers.size_bytes < grown + 300
    answers.keep(b"a", response(3), 0.0)
    assert answers.size_bytes == ONE_BYTES, "what stood there before has gone with all that it took"


def test_encodings_push_others_out_and_at_last_their_own_answer(answers: KeptAnswers, counts: CacheCounts) -> None:
    answers.keep(b"a", response(1), 0.0)
    answers.keep(b"b", response(2), 0.0)
    kept = answers.find(b"b", ANY, 0.0)
    assert kept is not None
    kept.batch.codec_cache["text"] = b"x" * ONE_BYTES
    assert (answers.find(b"a", ANY, 0.0), counts.evictions) == (None, 1)
    kept.batch.codec_cache["more"] = b"x" * 2 * ONE_BYTES
    assert (len(answers), answers.size_bytes, counts.evictions) == (0, 0, 2)
    kept.batch.codec_cache["late"] = b"x" * ONE_BYTES
    assert answers.size_bytes == 0, "who still holds an answer that has gone is not counted"
    answers.keep(b"b", response(3), 0.0)
    kept.batch.codec_cache["later"] = b"x" * ONE_BYTES
    assert answers.size_bytes == ONE_BYTES, "nor with the one that came in its place"


def test_equal_answers_have_one_tag_and_others_another(answers: KeptAnswers) -> None:
    tag = answers.keep(b"k", response(1, 5, start=0), 0.0).tag
    assert answers.keep(b"k", response(9, 1, start=1), 7.0).tag == tag
    assert len(tag) == 32
    texts = [
        answers.keep(b"k", Response("m", "1", BatchOutputs({"y": np.array(rows, object)}), 0, None), 0.0).tag
        for rows in ([b"ab", b"c"], [b"a", b"bc"])
    ]
    others = {
        answers.keep(b"k", response(2), 0.0).tag,
        answers.keep(b"j", response(1), 0.0).tag,
        answers.keep(b"k", response(1, warnings=("odd",)), 0.0).tag,
        *texts,
    }
    assert len(others | {tag}) == 6


def test_a_cleared_store_is_empty_and_stays_so(answers: KeptAnswers) -> None:
    answers.keep(b"a", response(1), 0.0)
    kept = answers.find(b"a", ANY, 0.0)
    answers.clear()
    assert kept is not None
    kept.batch.codec_cache["text"] = b"x"
    assert answers.keep(b"b", response(1), 0.0).tag == ""
    assert (len(answers), answers.size_bytes) == (0, 0)


@pytest.mark.parametrize("text", [False, True])
def test_what_is_counted_is_at_least_what_python_allocates(counts: CacheCounts, text: bool) -> None:
    answers = KeptAnswers(2**30, 10.0, counts)
    count = 500
    given, keys = [], [b"%032d" % number for number in range(count)]
    for number in range(count):
        made = response(number)
        if text:
            made.batch.arrays["t"] = np.array([[b"text %d" % number] * 3], object)
        given.append(made)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for key, made in zip(keys, given, strict=True):
            answers.keep(key, made, 0.0)
            encode(answers.find(key, ANY, 0.0))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken <= answers.size_bytes <= 2 * taken
