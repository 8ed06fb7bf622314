"""How likely some sounds are speech, heard by one voice detector at the same time, chunk by chunk.

python examples/silero_vad/listen.py http://127.0.0.1:8080
"""

import asyncio
import sys

import numpy as np
from sounds import RATE, silence, tone, vowels

import salver
from salver.protocol.errors import SalverError

CHUNK = 512
SOUNDS = {
    "silence": silence(2),
    "whistle": np.concatenate([silence(0.5), tone(1), silence(0.5)]),
    "a-i-a-i": np.concatenate([silence(0.5), vowels(1), silence(0.5)]),
}


async def heard(client: salver.AsyncClient, name: str, sound: np.ndarray) -> list[float]:
    """What the detector makes of each chunk: one session, its steps in order."""
    chunks = [sound[at : at + CHUNK] for at in range(0, len(sound) - CHUNK + 1, CHUNK)]
    likely = []
    for number, chunk in enumerate(chunks, start=1):
        session = {"sequence_id": name, "sequence_start": number == 1, "sequence_end": number == len(chunks)}
        answer = await client.predict("silero-vad", chunk[np.newaxis], parameters=session)
        likely.append(float(answer["output"][0, 0]))
    return likely


async def main(url: str) -> int:
    async with salver.AsyncClient(url) as client:
        try:
            found = await asyncio.gather(*(heard(client, name, sound) for name, sound in SOUNDS.items()))
        except SalverError as error:
            print(f"{error.code}: {error}", file=sys.stderr)
            return 1
    print("seconds ", *(f"{name:>8}" for name in SOUNDS))
    for at in range(0, len(found[0]), 8):
        print(f"{at * CHUNK / RATE:5.2f}    ", *(f"{max(likely[at : at + 8]):8.3f}" for likely in found))
    return 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main(*sys.argv[1:])))
