"""Errors as RFC 9457 problem documents, each with a stable ``type``.

One table declares every problem this front end can answer with; the OpenAPI document is made from
the same table. A ``ProblemError`` is raised wherever a request turns out to be wrong and becomes a
reply at the dispatcher; a ``Result`` that is no success becomes one through ``of_result``.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from raftcache.http.exchange import Reply
from raftcache.ops import Result, Status

TYPE_PREFIX: Final = "urn:raftcache:problem:"

RETRY_AFTER_S: Final = 1
"""Elections take well under a second; a client that waits this long finds the next leader."""


class Kind(enum.Enum):
    """Every problem: (end of its ``type``, HTTP status, title)."""

    BAD_REQUEST = ("bad-request", 400, "The request is malformed")
    NOT_FOUND = ("not-found", 404, "There is nothing at this path")
    KEY_NOT_FOUND = ("key-not-found", 404, "The key does not exist")
    METHOD_NOT_ALLOWED = ("method-not-allowed", 405, "This path does not take this method")
    REQUEST_TIMEOUT = ("request-timeout", 408, "The request's body did not arrive in time")
    NOT_AN_INTEGER = ("not-an-integer", 409, "The value is not a 64-bit integer")
    OVERFLOW = ("overflow", 409, "The counter would leave the signed 64-bit range")
    PRECONDITION_FAILED = ("precondition-failed", 412, "The condition does not hold")
    KEY_TOO_LARGE = ("key-too-large", 413, "The key is longer than this cluster accepts")
    VALUE_TOO_LARGE = ("value-too-large", 413, "The value is larger than this cluster accepts")
    BATCH_TOO_LARGE = ("batch-too-large", 413, "The batch is larger than this cluster accepts")
    EXCEEDS_BUDGET = ("exceeds-budget", 413, "The entry can never fit the memory of its group")
    URI_TOO_LONG = ("uri-too-long", 414, "The request line is too long")
    UNSUPPORTED_MEDIA_TYPE = ("unsupported-media-type", 415, "The body is not in a form taken here")
    EXPECTATION_FAILED = ("expectation-failed", 417, "The expectation cannot be met")
    IDEMPOTENCY_MISMATCH = (
        "idempotency-key-reused",
        422,
        "The idempotency key was used for another operation",
    )
    ABORTED = ("aborted", 424, "Another operation of the atomic batch failed")
    HEADERS_TOO_LARGE = ("headers-too-large", 431, "The request's header fields are too large")
    INTERNAL = ("internal", 500, "The server met a bug")
    UNAVAILABLE = ("unavailable", 503, "No leader took the operation; it was not applied")
    STORAGE_FULL = ("storage-full", 503, "The cluster's disks are full; nothing was applied")
    NOT_READY = ("not-ready", 503, "This node should get no traffic now")
    OUTCOME_UNKNOWN = ("outcome-unknown", 504, "The operation may or may not have been applied")

    def __init__(self, name: str, status: int, title: str) -> None:
        self.type: Final = TYPE_PREFIX + name
        self.status: Final = status
        self.title: Final = title


class ProblemDocument(msgspec.Struct, omit_defaults=True):
    """The body of an error (RFC 9457 section 3). ``version`` is an extension: the version of the
    entry that a condition did not match (absent: there is no entry)."""

    type: str
    title: str
    status: int
    detail: str
    version: int = 0


_encode: Final = msgspec.json.Encoder().encode


def problem_reply(
    kind: Kind,
    detail: str,
    *,
    headers: bytes = b"",
    version: int = 0,
    close: bool = False,
) -> Reply:
    """The reply for one problem; ``headers`` are further header lines, ``close`` ends the
    connection after it."""
    body = _encode(ProblemDocument(kind.type, kind.title, kind.status, detail, version))
    lines = b"Content-Type: application/problem+json\r\nCache-Control: no-store\r\n" + headers
    return Reply(kind.status, lines, body, close=close)


class ProblemError(Exception):
    """A request that cannot be served; carries the reply that says so."""

    def __init__(
        self, kind: Kind, detail: str, *, headers: bytes = b"", close: bool = False
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self._headers = headers
        self._close = close

    def reply(self) -> Reply:
        return problem_reply(self.kind, self.detail, headers=self._headers, close=self._close)


def bad_request(detail: str) -> ProblemError:
    """400 with what to do about it."""
    return ProblemError(Kind.BAD_REQUEST, detail)


_FAILURES: Final[dict[Status, tuple[Kind, str]]] = {
    Status.NOT_FOUND: (
        Kind.KEY_NOT_FOUND,
        "No such key: it was never written, was deleted or evicted, or has expired.",
    ),
    Status.PRECONDITION_FAILED: (
        Kind.PRECONDITION_FAILED,
        "The entry changed or is missing, so nothing was done. Read it again and retry with its"
        " current ETag.",
    ),
    Status.NOT_AN_INTEGER: (
        Kind.NOT_AN_INTEGER,
        "The stored value is not a decimal signed 64-bit integer, so nothing was done.",
    ),
    Status.OVERFLOW: (
        Kind.OVERFLOW,
        "The sum would leave the signed 64-bit range, so nothing was done.",
    ),
    Status.TOO_LARGE: (
        Kind.EXCEEDS_BUDGET,
        "Key and value are larger than the whole memory budget of their group. Nothing was"
        " stored or evicted. Store a smaller value or raise the cluster's memory.",
    ),
    Status.SESSION_MISMATCH: (
        Kind.IDEMPOTENCY_MISMATCH,
        "This Idempotency-Key came before with another operation, so nothing was done. Use a"
        " new key for every new operation.",
    ),
    Status.STALE_SEQUENCE: (
        Kind.IDEMPOTENCY_MISMATCH,
        "The session of this Idempotency-Key has moved on, so nothing was done. Use a new key"
        " for every new operation.",
    ),
    Status.INVALID: (
        Kind.BAD_REQUEST,
        "The operation was refused as malformed, and nothing was done.",
    ),
    Status.ABORTED: (
        Kind.ABORTED,
        "Another operation of this atomic batch failed, so nothing was done.",
    ),
    Status.UNAVAILABLE: (
        Kind.UNAVAILABLE,
        "The operation was surely not applied. Retry it, here or at another node.",
    ),
    Status.STORAGE_FULL: (
        Kind.STORAGE_FULL,
        "The disks of this key's group are full, or fail, so nothing was done. Reads go on. Make"
        " room on the nodes that `raftcache status` names; writes go on by themselves within a"
        " second.",
    ),
    Status.UNKNOWN: (
        Kind.OUTCOME_UNKNOWN,
        "The operation may or may not have been applied, or may still be. Read the key to find"
        " out, or send writes with an Idempotency-Key, which makes the retry safe.",
    ),
}

_RETRY_AFTER: Final = b"Retry-After: %d\r\n" % RETRY_AFTER_S


def of_result(result: Result) -> Reply:
    """The reply for an operation that ended otherwise than well."""
    kind, detail = _FAILURES[result.status]
    headers = _RETRY_AFTER if kind in (Kind.UNAVAILABLE, Kind.STORAGE_FULL) else b""
    version = result.version if kind is Kind.PRECONDITION_FAILED else 0
    return problem_reply(kind, detail, headers=headers, version=version)


def code_of(status: Status) -> int:
    """The HTTP status that tells of ``status``, as the results of a batch show it."""
    if status is Status.OK:
        return 200
    if status is Status.CREATED:
        return 201
    return _FAILURES[status][0].status
