"""``POST /v1/batch``: many operations in one request, results in order.

Decoding, checking of types and encoding are msgspec's; Python touches an operation once on its way
in and once on its way out. A malformed operation refuses the whole request before anything is
applied; how each operation of a well-formed request ended is told one by one, with the status an
HTTP request of its own would have had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import msgspec
from aiohttp import hdrs

from raftcache.http import query as q
from raftcache.http.body import read_body, refuse_codings
from raftcache.http.conditions import ABSENT, EXISTS, NEVER
from raftcache.http.exchange import Exchange, Reply
from raftcache.http.keys import session_of
from raftcache.http.problems import Kind, ProblemError, bad_request, code_of
from raftcache.limits import Limits
from raftcache.ops import (
    INT64_MAX,
    INT64_MIN,
    MAX_TTL_MS,
    Condition,
    Delete,
    Expire,
    Get,
    Incr,
    Match,
    Once,
    Result,
    Set,
    Status,
)
from raftcache.service import Service
from raftcache.units import parse_duration_ms

PARAMETERS: Final = ("timeout", "encoding")

Version = Annotated[int, msgspec.Meta(ge=1, le=INT64_MAX)]
Milliseconds = Annotated[int, msgspec.Meta(ge=1, le=MAX_TTL_MS)]
Flags = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Int64 = Annotated[int, msgspec.Meta(ge=INT64_MIN, le=INT64_MAX)]


class _Operation(
    msgspec.Struct, tag_field="op", frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False
):
    """What every operation has: the key, as text or as base64."""

    key: str | None = None
    key_base64: bytes | None = None


class _Conditional(_Operation, frozen=True):
    """What every write has: at most one condition."""

    if_version: Version | None = None
    if_absent: bool = False
    if_exists: bool = False


class GetOperation(_Operation, tag="get", frozen=True):
    """Read a key."""


class SetOperation(_Conditional, tag="set", frozen=True):
    """Store a value."""

    value: str | None = None
    value_base64: bytes | None = None
    ttl: str | None = None
    ttl_ms: Milliseconds | None = None
    keep_ttl: bool = False
    flags: Flags = 0


class DeleteOperation(_Conditional, tag="delete", frozen=True):
    """Remove a key."""


class IncrOperation(_Conditional, tag="incr", frozen=True):
    """Add to a counter."""

    by: Int64 = 1


class ExpireOperation(_Conditional, tag="expire", frozen=True):
    """Set the time to live; 0 removes the expiry."""

    ttl: str | None = None
    ttl_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_TTL_MS)] | None = None


Item = Get | Set | Delete | Incr | Expire | Once

Operation = GetOperation | SetOperation | DeleteOperation | IncrOperation | ExpireOperation
Write = SetOperation | DeleteOperation | IncrOperation | ExpireOperation


class BatchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body, when it is an object and not a bare list of operations."""

    operations: list[Operation]
    atomic: bool = False


class BatchResult(msgspec.Struct, omit_defaults=True):
    """How one operation ended; fields that it does not speak of are left out."""

    status: str
    code: int
    version: int = 0
    value: str | int | None = None
    value_base64: bytes | None = None
    ttl_ms: int = -1
    flags: int = 0


class BatchResponse(msgspec.Struct):
    """The body of the answer."""

    results: list[BatchResult]


_decode_request: Final = msgspec.json.Decoder(BatchRequest).decode
_decode_list: Final = msgspec.json.Decoder(list[Operation]).decode
_encode: Final = msgspec.json.Encoder().encode
_JSON: Final = b"Content-Type: application/json\r\nCache-Control: no-store\r\n"
_WORDS: Final = {status: (status.name.lower(), code_of(status)) for status in Status}


class Batches:
    """The handler of ``/v1/batch``."""

    def __init__(self, service: Service, limits: Limits) -> None:
        self._service = service
        self._limits = limits

    async def post(self, exchange: Exchange, raw_query: str) -> Reply:
        service, limits = self._service, self._limits
        query = q.parse_query(raw_query, PARAMETERS)
        timeout_s = q.timeout_s(query, limits)
        deadline = service.now() + timeout_s
        binary = _wants_base64(query)
        refuse_codings(exchange)
        _require_json(exchange)
        session = session_of(exchange, limits)
        body = await read_body(exchange, limits.max_batch_bytes, Kind.BATCH_TOO_LARGE, timeout_s)
        operations, atomic = _parse(body)
        if len(operations) > limits.max_batch_operations:
            raise ProblemError(
                Kind.BATCH_TOO_LARGE,
                f"The batch has {len(operations)} operations; at most"
                f" {limits.max_batch_operations} are accepted. Nothing was done.",
            )
        ops = _convert_all(operations, limits)
        if session is not None:
            if atomic:
                raise bad_request(
                    "Idempotency-Key does not go with atomic: true; guard the retry with"
                    " if_version or if_absent."
                )
            ops = _once(ops, session)
        results = await service.batch(ops, deadline, atomic=atomic) if ops else []
        return Reply(200, _JSON, _encode(BatchResponse(_render(operations, results, binary))))


def _wants_base64(query: q.Query) -> bool:
    encoding = query.get("encoding", "auto")
    if encoding not in ("auto", "base64"):
        raise bad_request("The query parameter 'encoding' should be auto or base64.")
    return encoding == "base64"


def _require_json(exchange: Exchange) -> None:
    """A declared content type has to be JSON. This also keeps other sites' HTML forms out."""
    declared = exchange.parsed.headers.get(hdrs.CONTENT_TYPE)
    if declared is None:
        return
    media_type = declared.partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ProblemError(
            Kind.UNSUPPORTED_MEDIA_TYPE,
            "A batch is JSON: send Content-Type: application/json.",
            headers=b"Accept: application/json\r\n",
        )


def _parse(body: bytes) -> tuple[list[Operation], bool]:
    try:
        if body.lstrip(b" \t\r\n")[:1] == b"[":
            return _decode_list(body), False
        request = _decode_request(body)
        return request.operations, request.atomic
    except (msgspec.DecodeError, RecursionError) as error:
        raise bad_request(f"The batch was refused and nothing was done: {error}.") from None


def _convert_all(operations: Sequence[Operation], limits: Limits) -> list[Item]:
    try:
        return [_CONVERT[type(operation)](operation, limits) for operation in operations]
    except (ProblemError, ValueError):
        return _blame(operations, limits)


def _blame(operations: Sequence[Operation], limits: Limits) -> list[Item]:
    """Find the operation that cannot be converted and name it in the problem."""
    ops: list[Item] = []
    for index, operation in enumerate(operations):
        try:
            ops.append(_CONVERT[type(operation)](operation, limits))
        except ProblemError as problem:
            raise ProblemError(
                problem.kind, f"Operation {index}: {problem.detail} Nothing was done."
            ) from None
        except ValueError as error:
            raise bad_request(f"Operation {index}: {error}. Nothing was done.") from None
    return ops


def _key(operation: Operation, limits: Limits) -> bytes:
    text, binary = operation.key, operation.key_base64
    if (text is None) is (binary is None):
        raise bad_request("Give the key in one of 'key' and 'key_base64'.")
    key = text.encode() if text is not None else binary
    assert key is not None
    if not 0 < len(key) <= limits.max_key_bytes:
        q.check_key(key, limits)
    return key


def _condition(write: Write) -> Condition | None:
    version, absent, exists = write.if_version, write.if_absent, write.if_exists
    if version is None and not absent and not exists:
        return None
    if absent:
        return ABSENT if version is None and not exists else NEVER
    return EXISTS if version is None else Condition(Match.VERSION_IN, (version,))


def _ttl_ms(text: str | None, milliseconds: int | None) -> int | None:
    if text is None:
        return milliseconds
    if milliseconds is not None:
        raise bad_request("Give the time to live in one of 'ttl' and 'ttl_ms'.")
    return parse_duration_ms(text)


def _get(operation: GetOperation, limits: Limits) -> Item:
    return Get(_key(operation, limits))


def _set(operation: SetOperation, limits: Limits) -> Item:
    text, value = operation.value, operation.value_base64
    if (text is None) is (value is None):
        raise bad_request("Give the value in one of 'value' and 'value_base64'.")
    if text is not None:
        value = text.encode()
    assert value is not None
    if len(value) > limits.max_value_bytes:
        raise ProblemError(
            Kind.VALUE_TOO_LARGE,
            f"The value has {len(value)} bytes; at most {limits.max_value_bytes} are accepted.",
        )
    ttl_ms = _ttl_ms(operation.ttl, operation.ttl_ms)
    if ttl_ms is not None:
        if operation.keep_ttl:
            raise bad_request("A ttl and keep_ttl exclude each other.")
        q.check_ttl(ttl_ms, zero_means="leave it out for a value that does not expire")
    return Set(
        _key(operation, limits),
        value,
        ttl_ms or 0,
        operation.flags,
        _condition(operation),
        operation.keep_ttl,
    )


def _delete(operation: DeleteOperation, limits: Limits) -> Item:
    return Delete(_key(operation, limits), _condition(operation))


def _incr(operation: IncrOperation, limits: Limits) -> Item:
    return Incr(_key(operation, limits), operation.by, _condition(operation))


def _expire(operation: ExpireOperation, limits: Limits) -> Item:
    ttl_ms = _ttl_ms(operation.ttl, operation.ttl_ms)
    if ttl_ms is None:
        raise bad_request("expire needs 'ttl' or 'ttl_ms'; 0 removes the expiry.")
    if ttl_ms:
        q.check_ttl(ttl_ms, zero_means="0 removes the expiry")
    return Expire(_key(operation, limits), ttl_ms, _condition(operation))


_CONVERT: Final[dict[type, Callable[[Any, Limits], Item]]] = {
    GetOperation: _get,
    SetOperation: _set,
    DeleteOperation: _delete,
    IncrOperation: _incr,
    ExpireOperation: _expire,
}


def _once(ops: Sequence[Item], session: bytes) -> list[Item]:
    """Each write becomes exactly-once under the request's key and its place in the batch."""
    return [
        Once(b"%b#%d" % (session, index), 0, op)
        if isinstance(op, Set | Delete | Incr | Expire)
        else op
        for index, op in enumerate(ops)
    ]


def _render(
    operations: Sequence[Operation], results: Sequence[Result], binary: bool
) -> list[BatchResult]:
    rendered: list[BatchResult] = []
    for operation, result in zip(operations, results, strict=True):
        word, code = _WORDS[result.status]
        shown = BatchResult(word, code, result.version)
        if code < 300:
            kind = type(operation)
            if kind is GetOperation:
                _show_entry(shown, result, binary)
            elif kind is IncrOperation:
                shown.value = result.number
            elif kind is DeleteOperation:
                shown.version = 0
            elif kind is ExpireOperation:
                shown.ttl_ms = result.ttl_ms
        rendered.append(shown)
    return rendered


def _show_entry(shown: BatchResult, result: Result, binary: bool) -> None:
    """The value as text when it is UTF-8 and nobody asked otherwise, else as base64."""
    value = result.value or b""
    shown.ttl_ms = result.ttl_ms
    shown.flags = result.flags
    if not binary:
        try:
            shown.value = value.decode()
            return
        except UnicodeDecodeError:
            pass
    shown.value_base64 = value
