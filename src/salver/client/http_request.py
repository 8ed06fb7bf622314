"""One request of HTTP/1.1 as bytes, and what failures on its way mean; the same for both kinds of socket."""

from __future__ import annotations

import select
import ssl
from typing import Final

from salver.client.address import Address, is_certificate_error
from salver.client.dialect import Content, Question
from salver.client.errors import CallError

__all__ = ["broken", "is_quiet", "late", "refused_connection", "write_request"]

_JOINED_BYTES: Final = 64 * 2**10
"""Copying so few bytes is cheaper than sending them apart."""


def write_request(question: Question, address: Address) -> list[Content]:
    """The bytes of a request, to be sent one after another."""
    size = sum(len(part) for part in question.body)
    lines = [f"{question.verb} {question.target} HTTP/1.1\r\nhost: {address.authority}\r\n"]
    lines += [f"{name}: {value}\r\n" for name, value in question.headers]
    if question.verb != "GET":
        lines.append(f"content-length: {size}\r\n")
    head = "".join([*lines, "\r\n"]).encode("latin-1")
    if size <= _JOINED_BYTES:
        return [b"".join([head, *question.body])]
    return [head, *question.body]


def is_quiet(descriptor: int) -> bool:
    """Whether nothing is to be read from a connection on which nothing is owed: the end, or what nobody asked for."""
    if descriptor < 0:
        return False
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return not poll.poll(0)


def refused_connection(address: Address, error: Exception) -> CallError:
    """There is no connection to send anything on."""
    if is_certificate_error(error):
        return CallError(
            "REFUSED_BY_POLICY",
            f"the certificate of {address.url} is not trusted: {error}",
            "pass verify=ssl.create_default_context(cafile=...)",
            may_have_run=False,
        )
    if isinstance(error, TimeoutError):
        problem = "does not answer"
    elif isinstance(error, ssl.SSLError):
        problem = f"does not speak TLS as it should ({error.reason or error})"
    else:
        problem = f"cannot be reached ({error})"
    return CallError("NOT_READY", f"{address.url} {problem}", "is `salver serve` running there?", may_have_run=False)


def late(address: Address, *, sent: bool) -> CallError:
    """The deadline came before the answer."""
    return CallError("DEADLINE_EXCEEDED", f"{address.url} gave no answer in time", "raise timeout_s", may_have_run=sent)


def broken(address: Address, problem: object, *, sent: bool, understood: bool) -> CallError:
    """The connection broke; a request of which a part was never sent cannot have run.

    `understood` is whether any answer came on it before: else the server may speak something else.
    """
    told = f"the connection to {address.url} broke: {problem or 'closed'}"
    other = "gRPC (grpcs://)" if address.secure else "TLS (https://) or gRPC (grpc://)"
    return CallError("NOT_READY", told, f"does it speak {other}?" if sent and not understood else "", may_have_run=sent)
