"""FastAPI in front of ONNX Runtime: what many write themselves. It has no batching of its own.

    PEER_MODEL=digits PEER_FOLDER=... uvicorn fastapi_app:app

A digit takes tens of microseconds, less than handing it to a thread; a text takes milliseconds and is computed in a
thread, as FastAPI's documentation says of blocking work ("def" instead of "async def"): in one thread, because the
other servers, too, compute one batch at a time.
"""

import os
from contextlib import asynccontextmanager

import anyio.to_thread
import peer_models
from fastapi import FastAPI
from pydantic import BaseModel


@asynccontextmanager
async def one_thread(_app):
    anyio.to_thread.current_default_thread_limiter().total_tokens = 1
    yield


app = FastAPI(lifespan=one_thread)
model = peer_models.load()


class Rows(BaseModel):
    instances: list[list[float]]


class Texts(BaseModel):
    instances: list[str]


class Digits(BaseModel):
    label: list[int]
    probabilities: list[list[float]]


class NoOp(BaseModel):
    first: list[float]


class MiniLM(BaseModel):
    embedding: list[list[float]]


def answer(instances):
    return peer_models.answer_all(model, [instances])[0]


if os.environ["PEER_MODEL"] == "minilm":

    @app.post("/predict")
    def embed(request: Texts) -> MiniLM:
        return answer(request.instances)

elif os.environ["PEER_MODEL"] == "digits":

    @app.post("/predict")
    async def classify(request: Rows) -> Digits:
        return answer(request.instances)

else:

    @app.post("/predict")
    async def nothing(request: Rows) -> NoOp:
        return answer(request.instances)
