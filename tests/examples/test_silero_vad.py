"""The voice detector, served: sounds chunk by chunk, and what the graph of the wheel answers with explicit state."""

import asyncio
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
import pytest
from pages import ROOT
from real_models import WHEELS, run

import salver
from salver.protocol.errors import SalverError

sys.path.append(str(ROOT / "examples" / "silero_vad"))

from sounds import silence, tone, vowels

CHUNK, CONTEXT = 512, 64
SOUNDS = [
    np.concatenate([vowels(0.5), silence(0.25)]),
    np.concatenate([silence(0.25), vowels(0.5)]),
    np.concatenate([tone(0.25), vowels(0.25), tone(0.25)]),
    silence(0.75),
]


def chunks(sound):
    return [sound[np.newaxis, at : at + CHUNK] for at in range(0, len(sound) - CHUNK + 1, CHUNK)]


@pytest.fixture(scope="module")
def expected():
    """What the graph as it is in the wheel makes of each sound, with its state carried from chunk to chunk."""
    with zipfile.ZipFile(next(WHEELS.glob("silero_vad-*.whl"))) as wheel:
        session = ort.InferenceSession(wheel.read("silero_vad/data/silero_vad.onnx"))
    found = []
    for sound in SOUNDS:
        state, context, likely = np.zeros((2, 1, 128), np.float32), np.zeros((1, CONTEXT), np.float32), []
        for chunk in chunks(sound):
            feed = {"input": np.concatenate([context, chunk], axis=1), "state": state, "sr": np.array(16_000)}
            output, state = session.run(["output", "stateN"], feed)
            context = chunk[:, -CONTEXT:]
            likely.append(output[0, 0])
        found.append(np.array(likely))
    return found


async def heard(client, name, sound):
    parts = chunks(sound)
    found = []
    for number, chunk in enumerate(parts, start=1):
        session = {"sequence_id": name, "sequence_start": number == 1, "sequence_end": number == len(parts)}
        answer = await client.predict("silero-vad", chunk, parameters=session)
        found.append(answer["output"][0, 0])
    return np.array(found)


def test_the_page_shows_what_is_printed(served):
    printed, shown = served.exchange("silero_vad")
    assert printed == shown


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_sounds_heard_at_the_same_time_are_heard_as_each_alone_with_explicit_state_to_the_bit(served, expected, door):
    async def listen():
        async with salver.AsyncClient(getattr(served, door)) as client:
            hearing = [heard(client, at + 1, SOUNDS[at % len(SOUNDS)]) for at in range(3 * len(SOUNDS))]
            return await asyncio.gather(*hearing)

    for found, wanted in zip(asyncio.run(listen()), expected * 3, strict=True):
        assert found.tobytes() == wanted.tobytes()


def test_speech_is_told_from_other_sounds(expected):
    speech, later_speech, _, nothing = (likely.max() for likely in expected)
    assert min(speech, later_speech) > 0.9
    assert nothing < 0.1


def test_blocking_clients_in_threads_each_have_their_session(served, expected):
    def listen(at):
        with salver.Client(served.http) as client:
            parts = chunks(SOUNDS[0])[:6]
            ends = {"sequence_id": f"thread {at}", "sequence_end": False}
            return [
                client.predict("silero-vad", part, parameters=ends | {"sequence_start": not number})["output"][0, 0]
                for number, part in enumerate(parts)
            ]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(listen, range(8))) == [expected[0][:6].tolist()] * 8


def test_a_chunk_without_a_session_is_refused(client):
    with pytest.raises(SalverError, match="the request names none") as caught:
        client.predict("silero-vad", SOUNDS[0][np.newaxis, :CHUNK])
    assert caught.value.code == "INVALID_PARAMETER"


def test_made_again_it_is_the_same(artifacts, tmp_path):
    run("examples/silero_vad/make.py", tmp_path / "again", "--wheels", WHEELS)
    names = ["model.onnx", "salver-model.toml"]
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == names
    before, again = (
        [(folder / name).read_bytes() for name in names] for folder in (artifacts / "silero-model", tmp_path / "again")
    )
    assert before == again
