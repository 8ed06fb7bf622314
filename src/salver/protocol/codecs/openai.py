"""Embeddings as OpenAI's API asks for and answers them.

`encoding_format: "base64"` is the little-endian FP32 of each embedding; OpenAI's own clients ask
for it without being told to.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import msgspec
import numpy as np

from salver.protocol.codecs.by_signature import tensor_of
from salver.protocol.codecs.plain_json import refuse_duplicate_keys
from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError
from salver.protocol.request import Response
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import Nonfinite
from salver.protocol.tensor import Tensor

__all__ = [
    "EmbeddingsBody",
    "EmbeddingsError",
    "decode_embeddings",
    "embedding_output",
    "encode_embeddings",
    "inputs_of",
    "require_dimensions",
    "token_output",
]

_FLOATING: Final = frozenset({"FP16", "BF16", "FP32", "FP64"})
_EMBEDDINGS: Final = ("embedding", "embeddings")
_COUNTS: Final = ("tokens", "token_count")
"""Outputs by which a version tells how many tokens each text had."""
_ENCODER: Final = msgspec.json.Encoder()

Given = str | list[str | int | list[int]]


class EmbeddingsError(SalverError):
    """A refusal that names the parameter at fault, as OpenAI's errors do."""

    def __init__(self, code: str, message: str, remedy: str = "", *, param: str) -> None:
        super().__init__(code, message, remedy)
        self.param = param


class EmbeddingsBody(msgspec.Struct, gc=False):
    """What a client asks for; members that are not listed are ignored."""

    input: Given
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None


_DECODER: Final = msgspec.json.Decoder(EmbeddingsBody)
_KEYS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def decode_embeddings(body: bytes) -> EmbeddingsBody:
    """Decode the body of a request; raises INVALID_JSON, or DUPLICATE_KEY, for anything else."""
    try:
        asked = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        raise EmbeddingsError(
            "INVALID_JSON",
            f"this is no request for embeddings: {problem}",
            'send "input" as a text, a list of texts, a list of tokens or a list of lists of tokens',
            param=path.strip("`.").partition("[")[0] or ("input" if "`input`" in problem else ""),
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SalverError("INVALID_JSON", f"the body is not JSON: {error}") from None
    except RecursionError:
        raise SalverError("INVALID_JSON", "the JSON is nested too deeply") from None
    # One colon for each member, unless texts hold some: as many as there are keys means that none came twice.
    if body.count(b":") != len(_KEYS.decode(body)):
        refuse_duplicate_keys(body)
    return asked


def inputs_of(asked: EmbeddingsBody, signature: Signature, max_elements: int) -> dict[str, Tensor]:
    """What was given, as the one input of the model that takes texts, or that takes tokens.

    Raises INVALID_VALUE for a list of both or of nothing, MISSING_INPUT where the model does not take
    what was given, WRONG_SHAPE for token lists of different length.
    """
    rows: list[Any] = [asked.input] if isinstance(asked.input, str) else asked.input
    kinds = {type(each) for each in rows}
    if len(kinds) != 1 or [] in rows:
        problem = "mixes texts and tokens" if len(kinds) > 1 else "is empty, or has an empty list"
        raise EmbeddingsError("INVALID_VALUE", f"'input' {problem}", "send texts, or tokens", param="input")
    (kind,) = kinds
    if kind is int:
        rows = [rows]
    spec = _taker(signature, "texts" if kind is str else "tokens")
    if kind is str and len(spec.shape) == 2:
        rows = [[text] for text in rows]
    return {spec.name: tensor_of(rows, spec, max_elements)}


def _taker(signature: Signature, what: str) -> TensorSpec:
    """The input that takes texts or tokens, if no other is required."""
    for spec in signature.inputs:
        is_text = spec.datatype == "BYTES" and spec.shape in ((-1,), (-1, 1))
        is_tokens = DATATYPES[spec.datatype].json_type is int and len(spec.shape) == 2
        fits = is_text if what == "texts" else is_tokens
        if fits and all(other.optional or other is spec for other in signature.inputs):
            return spec
    names = ", ".join(f"{spec.name!r} {spec.datatype} {list(spec.shape)}" for spec in signature.inputs)
    raise EmbeddingsError("MISSING_INPUT", f"the model does not take {what}; it takes {names}", param="input")


def embedding_output(signature: Signature) -> TensorSpec:
    """The output with one embedding for each row; raises UNKNOWN_OUTPUT if there is none or several could be it."""
    fitting = [spec for spec in signature.outputs if spec.datatype in _FLOATING and len(spec.shape) == 2]
    named = [spec for spec in fitting if spec.name in _EMBEDDINGS]
    found = named or fitting
    if not signature.batched or len(found) != 1:
        raise SalverError(
            "UNKNOWN_OUTPUT",
            f"the version has {len(found)} outputs with one row of numbers for each text",
            "give it one, or call one of them 'embedding'",
        )
    return found[0]


def token_output(signature: Signature) -> str | None:
    """The output that counts the tokens of each row, where a version has one."""
    for spec in signature.outputs:
        if spec.name in _COUNTS and spec.shape == (-1,) and DATATYPES[spec.datatype].json_type is int:
            return spec.name
    return None


def require_dimensions(asked: EmbeddingsBody, width: int) -> None:
    """Raise INVALID_PARAMETER if embeddings of another width are asked for; those of a model are not cut."""
    if asked.dimensions is not None and width != asked.dimensions and width >= 0:
        raise EmbeddingsError(
            "INVALID_PARAMETER",
            f"'dimensions' is {asked.dimensions}; the embeddings of this model have {width}",
            "leave it out",
            param="dimensions",
        )


def encode_embeddings(
    asked: EmbeddingsBody, response: Response, endpoint: str, output: TensorSpec, counts: str | None, policy: Nonfinite
) -> bytes:
    """The answer: an embedding for each row, in the order of the request.

    Tokens are counted where the client sent them or the model counts them, else the usage is 0.
    Raises NONFINITE_OUTPUT for NaN in lists of numbers unless the policy says otherwise.
    """
    table = response.array(output.name)
    if output.datatype == "BF16":
        table = (table.astype("<u4") << 16).view("<f4")
    require_dimensions(asked, table.shape[1])
    embeddings: Iterable[Any]
    if asked.encoding_format == "base64":
        embeddings = (base64.b64encode(row.tobytes()).decode() for row in np.ascontiguousarray(table, "<f4"))
    else:
        if policy is not Nonfinite.NULL and not np.isfinite(table).all():
            # Clients of this protocol read strict JSON: the tokens that other protocols have would end them.
            raise SalverError(
                "NONFINITE_OUTPUT",
                "the model answered NaN or infinity, which JSON cannot carry",
                'ask for "encoding_format": "base64", or deploy with --nonfinite null',
            )
        embeddings = table.tolist()
    tokens = _count(asked, response, counts)
    answer: Mapping[str, Any] = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": embedding}
            for index, embedding in enumerate(embeddings)
        ],
        "model": endpoint,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return _ENCODER.encode(answer)


def _count(asked: EmbeddingsBody, response: Response, counts: str | None) -> int:
    if isinstance(asked.input, list) and not isinstance(asked.input[0], str):
        return sum(len(each) if isinstance(each, list) else 1 for each in asked.input)
    return 0 if counts is None else int(response.array(counts).sum())
