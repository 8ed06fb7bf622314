"""Runs in an environment of its own, with OpenAI's client: what a user of it does, unmodified.

Arguments: URL of the data listener, a token. The endpoint `texts` embeds texts as (length, vowels, 0.1) and
counts their words; `sums` embeds nothing. Prints `ok NAME` for each step.
"""

import asyncio
import sys

import numpy as np
import openai

URL, TOKEN = sys.argv[1:3]
TEXTS = ["a good day", "\u00e9t\u00e9", ""]
WANTED = np.array([[10, 4, 0.1], [5, 0, 0.1], [0, 0, 0.1]], np.float32)


def check(answer):
    assert answer.object == "list"
    assert answer.model == "texts"
    assert [row.index for row in answer.data] == [0, 1, 2]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 4
    assert np.array_equal(np.array([row.embedding for row in answer.data], np.float32), WANTED), answer


def refused(call, kind, **wanted):
    try:
        call()
    except kind as error:
        assert {name: getattr(error, name) for name in wanted} == wanted, vars(error)
    else:
        raise AssertionError(f"not refused: {wanted}")


def says(call, words):
    """What a person reads when a call is refused."""
    try:
        call()
    except openai.APIStatusError as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"not refused: {words}")


def lost(client, base):
    ask = {"model": "texts", "messages": [{"role": "user", "content": "hello"}]}
    says(lambda: client.chat.completions.create(**ask), f"there is no {base}/chat/completions; of OpenAI's interface")
    says(lambda: client.completions.create(model="texts", prompt="a"), "/v1/embeddings and /v1/models are here")
    says(lambda: client.responses.create(model="texts", input="a"), "/v1/embeddings and /v1/models are here")


def models(client, wrong):
    assert sorted(model.id for model in client.models.list()) == ["sums", "texts", "total"]
    model = client.models.retrieve("texts")
    assert (model.id, model.object, model.owned_by) == ("texts", "model", "salver")
    refused(lambda: client.models.retrieve("nothing"), openai.NotFoundError, status_code=404)
    refused(wrong.models.list, openai.AuthenticationError, status_code=401)


def sync():
    client = openai.OpenAI(base_url=f"{URL}/v1", api_key=TOKEN, max_retries=0)
    check(client.embeddings.create(model="texts", input=TEXTS))
    raw = client.embeddings.with_raw_response.create(model="texts", input=TEXTS)
    assert b'"base64"' in raw.http_request.content
    assert '"embedding":"' in raw.text
    print("ok base64, which the client asks for by itself")
    check(client.embeddings.create(model="texts", input=TEXTS, encoding_format="float", dimensions=3, user="u"))
    print("ok lists of numbers")
    assert client.embeddings.create(model="texts", input="one").data[0].embedding[0] == 3
    print("ok one text")
    create = client.embeddings.create
    refused(lambda: create(model="nothing", input="a"), openai.NotFoundError, code="model_not_found", param="model")
    refused(lambda: create(model="sums", input="a"), openai.BadRequestError, param="model")
    refused(lambda: create(model="texts", input=[1, 2]), openai.BadRequestError, code="MISSING_INPUT", param="input")
    refused(
        lambda: create(model="texts", input="a", dimensions=2),
        openai.BadRequestError,
        type="invalid_request_error",
        param="dimensions",
    )
    wrong = openai.OpenAI(base_url=f"{URL}/v1", api_key="sk-none", max_retries=0)
    refused(
        lambda: wrong.embeddings.create(model="texts", input="a"), openai.AuthenticationError, code="invalid_api_key"
    )
    print("ok refusals")
    for base in ("", "/v1", "/openai/v1"):
        lost(openai.OpenAI(base_url=f"{URL}{base}", api_key=TOKEN, max_retries=0), base)
    bare = openai.OpenAI(base_url=URL, api_key=TOKEN, max_retries=0)
    says(lambda: bare.embeddings.create(model="texts", input="a"), "a client's base URL ends in /v1")
    print("ok words about what is not there")
    for base in ("/v1", "/openai/v1"):
        models(*(openai.OpenAI(base_url=f"{URL}{base}", api_key=key, max_retries=0) for key in (TOKEN, "sk-none")))
    # Under /v1 the path is TensorFlow Serving's too, and errors are in its shape.
    kserves = openai.OpenAI(base_url=f"{URL}/openai/v1", api_key=TOKEN, max_retries=0)
    says(lambda: kserves.models.retrieve("nothing"), "Could not find any versions of model nothing")
    print("ok models")
    nobody = openai.OpenAI(base_url=f"{URL}/v1", api_key="-")
    check(nobody.embeddings.create(model="texts", input=TEXTS, extra_headers={"Authorization": openai.Omit()}))
    print("ok no key where the server asks for none")


async def asynchronous():
    async with openai.AsyncOpenAI(base_url=f"{URL}/openai/v1", api_key=TOKEN) as client:
        for answer in await asyncio.gather(
            *(
                client.embeddings.create(model="texts", input=TEXTS, encoding_format=form)
                for form in ("float", "base64")
            )
        ):
            data = [
                np.frombuffer(__import__("base64").b64decode(row.embedding), "<f4")
                if isinstance(row.embedding, str)
                else row.embedding
                for row in answer.data
            ]
            assert np.array_equal(np.array(data, np.float32), WANTED)
        check(await client.embeddings.create(model="texts", input=TEXTS))
    print("ok asyncio")


sync()
asyncio.run(asynchronous())
