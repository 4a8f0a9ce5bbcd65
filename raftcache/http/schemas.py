"""The JSON schemas (2020-12) that the OpenAPI document refers to."""

from __future__ import annotations

from typing import Any, Final

from raftcache.http.problems import Kind
from raftcache.limits import Limits
from raftcache.ops import INT64_MAX, INT64_MIN, MAX_TTL_MS, Status
from raftcache.units import DURATION_PATTERN

Json = dict[str, Any]

_STRING: Final[Json] = {"type": "string"}
_BOOLEAN: Final[Json] = {"type": "boolean"}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_VERSION: Final[Json] = {"type": "integer", "minimum": 1, "maximum": INT64_MAX}
_FLAGS: Final[Json] = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
_INT64: Final[Json] = {"type": "integer", "minimum": INT64_MIN, "maximum": INT64_MAX}
_BASE64: Final[Json] = {
    "type": "string",
    "contentEncoding": "base64",
    "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
}


def schemas(limits: Limits) -> Json:
    """Every schema by name."""
    return {
        "Problem": _problem(),
        "Counter": _object({"value": _INT64, "version": _VERSION}),
        "Expiry": _object(
            {"version": _VERSION, "ttl_ms": {"type": ["integer", "null"], "minimum": 1}}
        ),
        "Operation": _operation(limits),
        "BatchRequest": _batch_request(limits),
        "BatchResult": _batch_result(),
        "BatchResponse": _object(
            {"results": {"type": "array", "items": {"$ref": "#/components/schemas/BatchResult"}}}
        ),
        "Cluster": _cluster(),
    }


def _object(properties: Json, *, required: list[str] | None = None) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


def _problem() -> Json:
    """RFC 9457 section 3; ``version`` is our one extension."""
    version = _VERSION | {"description": "With precondition-failed: the entry's version."}
    return _object(
        {
            "type": {"type": "string", "enum": [kind.type for kind in Kind]},
            "title": _STRING,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": _STRING,
            "version": version,
        },
        required=["type", "title", "status", "detail"],
    )


def _operation(limits: Limits) -> Json:
    """One operation of a batch, by ``op``."""
    key: Json = {
        "key": {"type": "string", "minLength": 1, "maxLength": limits.max_key_bytes},
        "key_base64": _BASE64 | {"minLength": 4},
    }
    conditions: Json = {"if_version": _VERSION, "if_absent": _BOOLEAN, "if_exists": _BOOLEAN}
    value: Json = {"value": _STRING, "value_base64": _BASE64}
    ttl = {"type": "string", "pattern": DURATION_PATTERN, "examples": ["30s"]}
    lives: Json = {"ttl": ttl, "ttl_ms": {"type": "integer", "minimum": 1, "maximum": MAX_TTL_MS}}
    expires: Json = {"ttl": ttl, "ttl_ms": {"type": "integer", "minimum": 0, "maximum": MAX_TTL_MS}}
    one_key = _one_of("key", "key_base64")
    variants: dict[str, tuple[Json, list[Json]]] = {
        "get": (key, [one_key]),
        "set": (
            {**key, **value, **lives, "keep_ttl": _BOOLEAN, "flags": _FLAGS, **conditions},
            [one_key, _one_of("value", "value_base64")],
        ),
        "delete": ({**key, **conditions}, [one_key]),
        "incr": ({**key, "by": _INT64, **conditions}, [one_key]),
        "expire": ({**key, **expires, **conditions}, [one_key, _one_of("ttl", "ttl_ms")]),
    }
    return {
        "oneOf": [
            _object({"op": {"const": name}, **properties}, required=["op"]) | {"allOf": rules}
            for name, (properties, rules) in variants.items()
        ]
    }


def _one_of(first: str, second: str) -> Json:
    return {"oneOf": [{"required": [first]}, {"required": [second]}]}


def _batch_request(limits: Limits) -> Json:
    operations = {
        "type": "array",
        "items": {"$ref": "#/components/schemas/Operation"},
        "maxItems": limits.max_batch_operations,
    }
    whole = _object({"operations": operations, "atomic": _BOOLEAN}, required=["operations"])
    return {"oneOf": [operations, whole]}


def _batch_result() -> Json:
    return _object(
        {
            "status": {"type": "string", "enum": [status.name.lower() for status in Status]},
            "code": {"type": "integer", "minimum": 200, "maximum": 599},
            "version": _VERSION,
            "value": {"type": ["string", "integer"], "description": "Text, or a counter."},
            "value_base64": _BASE64,
            "ttl_ms": _COUNT,
            "flags": _FLAGS,
        },
        required=["status", "code"],
    )


def _cluster() -> Json:
    member = _object(
        {
            "id": _STRING,
            "http": _STRING,
            "peer": _STRING,
            "connected": _BOOLEAN,
            "self": _BOOLEAN,
        }
    )
    counts = (
        "term last_index commit_index applied_index lag slots entries bytes budget_bytes hits"
        " misses evictions expirations"
    )
    group = _object(
        {
            "id": _COUNT,
            "replicas": {"type": "array", "items": _STRING},
            "leader": {"type": ["string", "null"]},
            "role": _STRING,
            "has_room": _BOOLEAN,
            "policy": _STRING,
            **dict.fromkeys(counts.split(), _COUNT),
        }
    )
    slot_range = {"type": "array", "items": _COUNT, "minItems": 3, "maxItems": 3}
    return _object(
        {
            "cluster": _STRING,
            "node": _STRING,
            "version": _STRING,
            "ready": _BOOLEAN,
            "members": {"type": "array", "items": member},
            "groups": {"type": "array", "items": group},
            "slot_ranges": {
                "type": "array",
                "description": "First slot, last slot, group; covering all 16384.",
                "items": slot_range,
            },
        }
    )
