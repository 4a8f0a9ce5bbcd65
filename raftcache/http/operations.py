"""The operations of a batch: decoded by msgspec, checked, and turned into ``ops``.

A field that is misspelt, of the wrong type, out of range or ``null`` is an error that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from raftcache.http import query as q
from raftcache.http.conditions import ABSENT, EXISTS, NEVER
from raftcache.http.problems import Kind, ProblemError, bad_request
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
    Set,
)
from raftcache.units import parse_duration_ms

Version = Annotated[int, msgspec.Meta(ge=1, le=INT64_MAX)]
Milliseconds = Annotated[int, msgspec.Meta(ge=1, le=MAX_TTL_MS)]
Flags = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Int64 = Annotated[int, msgspec.Meta(ge=INT64_MIN, le=INT64_MAX)]


class _Operation(
    msgspec.Struct, tag_field="op", frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False
):
    """What every operation has: the key, as text or as base64."""

    key: str | UnsetType = UNSET
    key_base64: bytes | UnsetType = UNSET


class _Conditional(_Operation, frozen=True):
    """What every write has: at most one condition."""

    if_version: Version | UnsetType = UNSET
    if_absent: bool = False
    if_exists: bool = False


class GetOperation(_Operation, tag="get", frozen=True):
    """Read a key."""


class SetOperation(_Conditional, tag="set", frozen=True):
    """Store a value."""

    value: str | UnsetType = UNSET
    value_base64: bytes | UnsetType = UNSET
    ttl: str | UnsetType = UNSET
    ttl_ms: Milliseconds | UnsetType = UNSET
    keep_ttl: bool = False
    flags: Flags = 0


class DeleteOperation(_Conditional, tag="delete", frozen=True):
    """Remove a key."""


class IncrOperation(_Conditional, tag="incr", frozen=True):
    """Add to a counter."""

    by: Int64 = 1


class ExpireOperation(_Conditional, tag="expire", frozen=True):
    """Set the time to live; 0 removes the expiry."""

    ttl: str | UnsetType = UNSET
    ttl_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_TTL_MS)] | UnsetType = UNSET


Item = Get | Set | Delete | Incr | Expire | Once

Operation = GetOperation | SetOperation | DeleteOperation | IncrOperation | ExpireOperation
Write = SetOperation | DeleteOperation | IncrOperation | ExpireOperation


class BatchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body, when it is an object and not a bare list of operations."""

    operations: list[Operation]
    atomic: bool = False


_decode_request: Final = msgspec.json.Decoder(BatchRequest).decode
_decode_list: Final = msgspec.json.Decoder(list[Operation]).decode


def parse(body: bytes) -> tuple[list[Operation], bool]:
    """The operations of a request's body, and whether they are atomic."""
    try:
        if body.lstrip(b" \t\r\n")[:1] == b"[":
            return _decode_list(body), False
        request = _decode_request(body)
        return request.operations, request.atomic
    except (msgspec.DecodeError, RecursionError) as error:
        raise bad_request(f"The batch was refused and nothing was done: {error}.") from None


def convert(operations: Sequence[Operation], limits: Limits) -> list[Item]:
    """The operations in the vocabulary of ``ops``; a problem naming the first that is wrong."""
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


def _either(text: str | UnsetType, binary: bytes | UnsetType, name: str) -> bytes:
    """The bytes of a field that comes as text or as base64."""
    if binary is UNSET:
        if text is not UNSET:
            return text.encode()
    elif text is UNSET:
        return binary
    raise bad_request(f"Give the {name} in one of '{name}' and '{name}_base64'.")


def _key(operation: Operation, limits: Limits) -> bytes:
    key = _either(operation.key, operation.key_base64, "key")
    if not 0 < len(key) <= limits.max_key_bytes:
        q.check_key(key, limits)
    return key


def _condition(write: Write) -> Condition | None:
    version, absent, exists = write.if_version, write.if_absent, write.if_exists
    if version is UNSET:
        if not absent and not exists:
            return None
        if absent:
            return NEVER if exists else ABSENT
        return EXISTS
    return NEVER if absent else Condition(Match.VERSION_IN, (version,))


def _ttl_ms(text: str | UnsetType, milliseconds: int | UnsetType) -> int | None:
    if text is UNSET:
        return None if milliseconds is UNSET else milliseconds
    if milliseconds is not UNSET:
        raise bad_request("Give the time to live in one of 'ttl' and 'ttl_ms'.")
    return parse_duration_ms(text)


def _get(operation: GetOperation, limits: Limits) -> Item:
    return Get(_key(operation, limits))


def _set(operation: SetOperation, limits: Limits) -> Item:
    value = _either(operation.value, operation.value_base64, "value")
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


def once(ops: Sequence[Item], session: bytes) -> list[Item]:
    """Each write becomes exactly-once under the request's key and its place in the batch."""
    return [
        Once(b"%b#%d" % (session, index), 0, op)
        if isinstance(op, Set | Delete | Incr | Expire)
        else op
        for index, op in enumerate(ops)
    ]
