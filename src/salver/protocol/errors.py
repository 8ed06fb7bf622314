"""The one error catalogue.

Every refusal a client can see is a `SalverError` with a code from `CATALOGUE`, which fixes its
HTTP status and its gRPC status. A message names the thing and the value; `remedy` says what to
do. Neither may hold a path of the server, a stack trace, or what a model's own code said -
except by `BadInputError`, which is said to clients: those go to the log under the request id.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["CATALOGUE", "Code", "SalverError"]


class Code(NamedTuple):
    """How one error looks on the wire: HTTP status, gRPC status, and what it means."""

    http: int
    grpc: str
    meaning: str


CATALOGUE: Final[dict[str, Code]] = {
    # The request itself.
    "BAD_HTTP": Code(400, "INVALID_ARGUMENT", "the bytes are not an HTTP/1.1 request"),
    "BAD_MESSAGE": Code(400, "INVALID_ARGUMENT", "the bytes are not the message this method takes"),
    "INVALID_JSON": Code(400, "INVALID_ARGUMENT", "the body is not the JSON this route expects"),
    "DUPLICATE_KEY": Code(400, "INVALID_ARGUMENT", "a JSON object names one key twice"),
    "INVALID_TENSOR": Code(400, "INVALID_ARGUMENT", "a tensor contradicts itself"),
    "INVALID_VALUE": Code(400, "INVALID_ARGUMENT", "a value does not fit its datatype"),
    "INVALID_PARAMETER": Code(400, "INVALID_ARGUMENT", "a parameter has no such value"),
    "UNKNOWN_INPUT": Code(400, "INVALID_ARGUMENT", "the model has no such input"),
    "MISSING_INPUT": Code(400, "INVALID_ARGUMENT", "a required input is absent"),
    "UNKNOWN_OUTPUT": Code(400, "INVALID_ARGUMENT", "the model has no such output"),
    "WRONG_DATATYPE": Code(400, "INVALID_ARGUMENT", "an input has another datatype"),
    "BAD_INPUT": Code(400, "INVALID_ARGUMENT", "the model's own code refused this input"),
    "WRONG_SHAPE": Code(400, "INVALID_ARGUMENT", "an input has another rank or size"),
    "TOO_MANY_ROWS": Code(400, "INVALID_ARGUMENT", "one request is larger than a batch may be"),
    "TOO_MANY_PIPELINED": Code(400, "INVALID_ARGUMENT", "too many unanswered requests"),
    "INVALID_NAME": Code(400, "INVALID_ARGUMENT", "a name breaks the rule for names"),
    "INVALID_VERSION": Code(400, "INVALID_ARGUMENT", "not a semantic version"),
    "INVALID_ARTIFACT": Code(400, "INVALID_ARGUMENT", "an artifact cannot be read"),
    "INVALID_SETTING": Code(400, "INVALID_ARGUMENT", "a setting has no such value"),
    "UNAUTHENTICATED": Code(401, "UNAUTHENTICATED", "no valid token came with the request"),
    "PERMISSION_DENIED": Code(403, "PERMISSION_DENIED", "the principal may not do this"),
    "REFUSED_BY_POLICY": Code(403, "PERMISSION_DENIED", "a safety rule forbids this"),
    "NOT_FOUND": Code(404, "NOT_FOUND", "no such route, model, version or endpoint"),
    "SESSION_UNKNOWN": Code(404, "NOT_FOUND", "no session has this id; its first step says so"),
    "METHOD_NOT_ALLOWED": Code(405, "UNIMPLEMENTED", "the route exists with other verbs"),
    "NOT_ACCEPTABLE": Code(406, "INVALID_ARGUMENT", "no answer in an accepted media type"),
    "REQUEST_TIMEOUT": Code(408, "DEADLINE_EXCEEDED", "the request came too slowly"),
    "ALREADY_EXISTS": Code(409, "ALREADY_EXISTS", "the name is taken by something else"),
    "CONFLICT": Code(409, "ABORTED", "another holder or a newer state is in the way"),
    "ILLEGAL_TRANSITION": Code(409, "FAILED_PRECONDITION", "a stage that cannot be reached from this one"),
    "STEP_SKIPPED": Code(409, "ABORTED", "a step before this one did not run, so this one did not"),
    "SESSION_LOST": Code(410, "ABORTED", "the session's state is gone; begin it again"),
    "JOB_NOT_DONE": Code(409, "FAILED_PRECONDITION", "the job has no result yet"),
    "JOB_FAILED": Code(409, "FAILED_PRECONDITION", "the job failed and has no result"),
    "JOB_CANCELLED": Code(410, "FAILED_PRECONDITION", "the job was cancelled and has no result"),
    "JOB_EXPIRED": Code(410, "NOT_FOUND", "the job waited for too long, or was kept long enough"),
    "PRECONDITION_FAILED": Code(412, "FAILED_PRECONDITION", "the client has this answer already"),
    "BODY_TOO_LARGE": Code(413, "RESOURCE_EXHAUSTED", "the body exceeds its limit"),
    "URI_TOO_LONG": Code(414, "INVALID_ARGUMENT", "the request target exceeds its limit"),
    "UNSUPPORTED_MEDIA_TYPE": Code(415, "INVALID_ARGUMENT", "the body's type is not understood"),
    "MISDIRECTED_HOST": Code(421, "INVALID_ARGUMENT", "the Host header names another server"),
    "POISON_INPUT": Code(422, "INVALID_ARGUMENT", "this input killed two workers"),
    "OUTSIDE_PROFILE": Code(422, "OUT_OF_RANGE", "values unlike the training data"),
    "QUEUE_FULL": Code(429, "RESOURCE_EXHAUSTED", "too much work is waiting"),
    "TOO_MANY_SESSIONS": Code(429, "RESOURCE_EXHAUSTED", "as many sessions are open as may be"),
    "TOO_MANY_CONNECTIONS": Code(429, "RESOURCE_EXHAUSTED", "the connection cap is reached"),
    "TOO_MANY_GUESSES": Code(429, "RESOURCE_EXHAUSTED", "too many wrong tokens came from one address"),
    "HEADERS_TOO_LARGE": Code(431, "INVALID_ARGUMENT", "the header section exceeds its limit"),
    # The model.
    "MODEL_ERROR": Code(500, "INTERNAL", "the model raised an exception"),
    "BAD_MODEL_OUTPUT": Code(500, "INTERNAL", "the model's outputs contradict its signature"),
    "NONFINITE_OUTPUT": Code(500, "INTERNAL", "the model answered NaN or infinity"),
    "LOAD_FAILED": Code(500, "FAILED_PRECONDITION", "the version could not be loaded"),
    "CORRUPT_ARTIFACT": Code(500, "DATA_LOSS", "stored bytes differ from their digest"),
    # The server.
    "INTERNAL": Code(500, "INTERNAL", "a fault of this server"),
    "UNSUPPORTED": Code(501, "UNIMPLEMENTED", "this server does not do that"),
    "WORKER_LOST": Code(503, "UNAVAILABLE", "the worker died while it ran this request"),
    "OVERLOADED": Code(503, "UNAVAILABLE", "the answer would come too late"),
    "NOT_READY": Code(503, "UNAVAILABLE", "no healthy replica"),
    "CONTROL_UNAVAILABLE": Code(503, "UNAVAILABLE", "the controller or its database does not answer"),
    "STORE_UNAVAILABLE": Code(503, "UNAVAILABLE", "the artifact store does not answer"),
    "DEADLINE_EXCEEDED": Code(504, "DEADLINE_EXCEEDED", "the deadline passed before an answer"),
    "NOT_CACHED": Code(504, "NOT_FOUND", "no answer is kept, and the client wants no other"),
    "MODEL_HUNG": Code(504, "DEADLINE_EXCEEDED", "the model did not return"),
    "OUT_OF_MEMORY": Code(507, "RESOURCE_EXHAUSTED", "too little memory is free for the model"),
    "STORAGE_FULL": Code(507, "RESOURCE_EXHAUSTED", "no space left for the data directory"),
}


class SalverError(Exception):
    """A refusal with a code from `CATALOGUE`, safe to show to a client.

    `str(error)` is the message, followed by the remedy when there is one. `retry_after_s` says
    when to ask again, where that is known. An unknown code raises KeyError at once: the catalogue
    is the contract.
    """

    def __init__(self, code: str, message: str, remedy: str = "", *, retry_after_s: float | None = None) -> None:
        self.http, self.grpc, _ = CATALOGUE[code]
        self.code = code
        self.message = message
        self.remedy = remedy
        self.retry_after_s = retry_after_s
        super().__init__(message)

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message
