"""The OpenAPI 3.1 document of this front end, with the limits of the running node in it.

Written by hand, from the same tables the server answers from (``Kind``); a fuzzer holds it and the
server against each other in the tests. Paths with keys say what OpenAPI cannot: a key may contain
``/``, raw or as ``%2F``.
"""

from __future__ import annotations

from typing import Any, Final

from raftcache import __version__
from raftcache.http.conditions import TAGS_PATTERN
from raftcache.http.problems import Kind
from raftcache.http.schemas import schemas
from raftcache.limits import Limits
from raftcache.ops import INT64_MAX, INT64_MIN
from raftcache.units import DURATION_PATTERN

Json = dict[str, Any]

DESCRIPTION: Final = """\
A strongly consistent, replicated, bounded cache. Every write is acknowledged after commit and apply
on a majority; every default read is linearizable; eviction and expiry are part of the replicated
state. Every node answers for every key.

**503** (with `Retry-After`) means that the operation was surely not applied; its type says whether
that is for want of a leader (`unavailable`) or of space on disk (`storage-full`). **504** means
that it may or may not have been applied, or may still be; send writes with an `Idempotency-Key` to
make the retry safe. Durations are a number and one of `ms`, `s`, `m`, `h`, `d`; without a unit,
seconds. Unknown or repeated query parameters are refused with 400.
"""

_ANY_REQUEST: Final = (
    Kind.BAD_REQUEST,
    Kind.METHOD_NOT_ALLOWED,
    Kind.URI_TOO_LONG,
    Kind.HEADERS_TOO_LARGE,
)
_ANY_OPERATION: Final = (Kind.UNAVAILABLE, Kind.STORAGE_FULL, Kind.OUTCOME_UNKNOWN)
_ANY_WRITE: Final = (
    *_ANY_OPERATION,
    Kind.PRECONDITION_FAILED,
    Kind.KEY_TOO_LARGE,
    Kind.EXCEEDS_BUDGET,
    Kind.IDEMPOTENCY_MISMATCH,
)
_ANY_BODY: Final = (
    Kind.REQUEST_TIMEOUT,
    Kind.UNSUPPORTED_MEDIA_TYPE,
    Kind.EXPECTATION_FAILED,
    Kind.IDEMPOTENCY_MISMATCH,
)

_ETAG: Final[Json] = {
    "ETag": {
        "description": "The entry's version in quotes: strictly increasing, never reused.",
        "required": True,
        "schema": {"type": "string", "pattern": '^"[1-9][0-9]*"$'},
    }
}
_CACHE: Final[Json] = {"Cache-Control": {"schema": {"type": "string"}}}


def document(limits: Limits) -> Json:
    """The whole document, ready to be encoded as JSON."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "raftcache",
            "version": __version__,
            "summary": "A cache that never lies, over plain HTTP",
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "This node"}],
        "tags": [
            {"name": "keys", "description": "One entry at a time"},
            {"name": "batch", "description": "Many operations in one request"},
            {"name": "cluster", "description": "Members, groups and leaders"},
            {"name": "operation", "description": "Health, metrics, documentation"},
        ],
        "paths": {
            "/v1/keys/{key}": {
                "parameters": [_key(limits)],
                "get": _get(),
                "head": _get(head=True),
                "put": _put(limits),
                "delete": _delete(),
            },
            "/v1/keys/{key}/incr": {"parameters": [_key(limits)], "post": _incr()},
            "/v1/keys/{key}/expire": {"parameters": [_key(limits)], "post": _expire()},
            "/v1/batch": {"post": _batch(limits)},
            "/v1/cluster": {
                "get": _page("cluster", "getCluster", "The cluster's state", "Cluster")
            },
            "/v1/cluster/groups/{group}/transfer": {"post": _transfer()},
            "/healthz": {"get": _text("getHealth", "200 while the process lives")},
            "/readyz": {"get": _ready()},
            "/metrics": {"get": _text("getMetrics", "Prometheus metrics")},
            "/openapi.json": {"get": _page("operation", "getOpenApi", "This document", None)},
            "/ui": {"get": _text("getDashboard", "A dashboard", media_type="text/html")},
        },
        "components": {"schemas": schemas(limits)},
    }


def _problems(*kinds: Kind) -> Json:
    """Responses for ``kinds``, one per status, each naming the ``type`` values it may have."""
    responses: Json = {}
    for status in sorted({kind.status for kind in kinds}):
        alike = [kind for kind in dict.fromkeys(kinds) if kind.status == status]
        schema = {
            "allOf": [
                {"$ref": "#/components/schemas/Problem"},
                {
                    "properties": {
                        "type": {"enum": [kind.type for kind in alike]},
                        "status": {"const": status},
                    }
                },
            ]
        }
        responses[str(status)] = {
            "description": "; ".join(kind.title for kind in alike),
            "content": {"application/problem+json": {"schema": schema}},
        }
        if status == 503:
            responses["503"]["headers"] = {
                "Retry-After": {
                    "description": "Seconds to wait",
                    "required": True,
                    "schema": {"type": "integer", "minimum": 0},
                }
            }
        if status == 405:
            responses["405"]["headers"] = {
                "Allow": {"required": True, "schema": {"type": "string"}}
            }
    return responses


def _key(limits: Limits) -> Json:
    return {
        "name": "key",
        "in": "path",
        "required": True,
        "description": "The key: any bytes, percent-encoded. A / may stand as it is or as %2F; +"
        " means itself.",
        "schema": {"type": "string", "minLength": 1, "maxLength": limits.max_key_bytes},
    }


def _query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _header(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "header", "description": description, "schema": schema}


def _duration(name: str, description: str, *examples: str) -> Json:
    schema = {
        "type": "string",
        "pattern": DURATION_PATTERN,
        "examples": list(examples or ("30s", "500ms", "2h")),
    }
    return _query(name, description, schema)


def _timeout() -> Json:
    return _duration("timeout", "How long to wait for the outcome.", "5s", "500ms")


def _if_match() -> Json:
    return _header(
        "If-Match",
        "`*`, or a list of ETags; compared strongly (RFC 9110 section 13.1.1).",
        {"type": "string", "pattern": TAGS_PATTERN, "examples": ["*", '"17"']},
    )


def _if_none_match() -> Json:
    return _header(
        "If-None-Match",
        "`*`, or a list of ETags; compared weakly (RFC 9110 section 13.1.2).",
        {"type": "string", "pattern": TAGS_PATTERN, "examples": ["*", '"17"']},
    )


def _idempotency_key() -> Json:
    return _header(
        "Idempotency-Key",
        "Makes the write exactly-once: a repetition does nothing and is answered as the first was.",
        {"type": "string", "pattern": "^[!-~]+$", "minLength": 1, "maxLength": 255},
    )


def _operation(tag: str, name: str, summary: str, parameters: list[Json], responses: Json) -> Json:
    return {
        "tags": [tag],
        "operationId": name,
        "summary": summary,
        "parameters": parameters,
        "responses": responses,
    }


def _json(description: str, schema: str | None, headers: Json | None = None) -> Json:
    reference = {"type": "object"} if schema is None else {"$ref": f"#/components/schemas/{schema}"}
    return {
        "description": description,
        "headers": headers or {},
        "content": {"application/json": {"schema": reference}},
    }


def _get(*, head: bool = False) -> Json:
    parameters = [
        _query(
            "consistency",
            "`linearizable` (default) sees every write acknowledged before; `lease` the same"
            " within the clock-drift bound; `stale` reads this node's replica.",
            {"type": "string", "enum": ["linearizable", "lease", "stale"]},
        ),
        _duration("max_staleness", "With `consistency=stale`: no older than this."),
        _timeout(),
        _if_match(),
        _if_none_match(),
    ]
    headers = {
        **_ETAG,
        **_CACHE,
        "Raftcache-TTL-Ms": {
            "description": "Time left in milliseconds; only when the entry expires.",
            "schema": {"type": "integer", "minimum": 0},
        },
        "Raftcache-Flags": {
            "description": "The flags it was stored with; only when not 0.",
            "schema": {"type": "integer", "minimum": 1, "maximum": 2**32 - 1},
        },
    }
    found: Json = {"description": "The value", "headers": headers}
    failures = _problems(
        *_ANY_REQUEST,
        *_ANY_OPERATION,
        Kind.KEY_NOT_FOUND,
        Kind.PRECONDITION_FAILED,
        Kind.KEY_TOO_LARGE,
    )
    if head:
        for response in failures.values():
            del response["content"]
    else:
        found["content"] = {"application/octet-stream": {}}
    responses = {
        "200": found,
        "304": {"description": "If-None-Match names the current version", "headers": _ETAG},
        **failures,
    }
    name, summary = ("headKey", "Is it there?") if head else ("getKey", "Read a value")
    return _operation("keys", name, summary, parameters, responses)


def _put(limits: Limits) -> Json:
    parameters = [
        _duration("ttl", "The entry expires after this. At least 1ms; left out: never."),
        _query("keep_ttl", "Keep the old entry's expiry.", {"enum": ["true", "false"]}),
        _query(
            "flags",
            "A number kept with the value.",
            {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
        ),
        _timeout(),
        _if_match(),
        _if_none_match(),
        _idempotency_key(),
    ]
    responses = {
        "200": {"description": "Replaced", "headers": _ETAG},
        "201": {"description": "Created", "headers": _ETAG},
        **_problems(*_ANY_REQUEST, *_ANY_WRITE, *_ANY_BODY, Kind.VALUE_TOO_LARGE),
    }
    operation = _operation("keys", "putKey", "Store a value", parameters, responses)
    operation["requestBody"] = {
        "description": f"The value: any bytes, at most {limits.max_value_bytes}. A"
        " Content-Encoding is refused.",
        "required": True,
        "content": {"application/octet-stream": {}},
    }
    return operation


def _delete() -> Json:
    parameters = [_timeout(), _if_match(), _if_none_match(), _idempotency_key()]
    responses = {
        "204": {"description": "Deleted"},
        **_problems(*_ANY_REQUEST, *_ANY_WRITE, Kind.KEY_NOT_FOUND),
    }
    return _operation("keys", "deleteKey", "Remove a key", parameters, responses)


def _incr() -> Json:
    by = {"type": "integer", "minimum": INT64_MIN, "maximum": INT64_MAX, "default": 1}
    parameters = [
        _query("by", "What to add to the decimal integer stored there (missing: 0).", by),
        _timeout(),
        _if_match(),
        _if_none_match(),
        _idempotency_key(),
    ]
    responses = {
        "200": _json("The new value", "Counter", _ETAG),
        **_problems(*_ANY_REQUEST, *_ANY_WRITE, Kind.NOT_AN_INTEGER, Kind.OVERFLOW),
    }
    return _operation("keys", "incrementKey", "Add to a counter", parameters, responses)


def _expire() -> Json:
    ttl = _duration("ttl", "Time to live from now; 0 removes the expiry.") | {"required": True}
    parameters = [ttl, _timeout(), _if_match(), _if_none_match(), _idempotency_key()]
    responses = {
        "200": _json("The expiry was set", "Expiry", _ETAG),
        **_problems(*_ANY_REQUEST, *_ANY_WRITE, Kind.KEY_NOT_FOUND),
    }
    return _operation("keys", "expireKey", "Set the time to live", parameters, responses)


def _batch(limits: Limits) -> Json:
    parameters = [
        _query(
            "encoding",
            "`base64`: values come as `value_base64` always; `auto` (default): only those that"
            " are not UTF-8.",
            {"type": "string", "enum": ["auto", "base64"]},
        ),
        _timeout(),
        _idempotency_key(),
    ]
    responses = {
        "200": _json("How each operation ended, in order", "BatchResponse"),
        **_problems(
            *_ANY_REQUEST,
            *_ANY_BODY,
            Kind.KEY_TOO_LARGE,
            Kind.VALUE_TOO_LARGE,
            Kind.BATCH_TOO_LARGE,
        ),
    }
    operation = _operation("batch", "batch", "Many operations at once", parameters, responses)
    operation["description"] = (
        "A malformed operation refuses the whole request and nothing is done. Otherwise each"
        " operation ends on its own, with the status that a request of its own would have had;"
        " with `atomic`, those of one Raft group are applied all or not at all."
    )
    reference = {"$ref": "#/components/schemas/BatchRequest"}
    operation["requestBody"] = {
        "description": f"At most {limits.max_batch_operations} operations and"
        f" {limits.max_batch_bytes} bytes.",
        "required": True,
        "content": {"application/json": {"schema": reference}},
    }
    return operation


def _transfer() -> Json:
    group = {
        "name": "group",
        "in": "path",
        "required": True,
        "description": "The group's number.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999},
    }
    to = _query("to", "The node to lead; left out: the most caught-up one.", {"type": "string"})
    responses = {
        "204": {"description": "Leadership was handed over"},
        **_problems(*_ANY_REQUEST, *_ANY_OPERATION, Kind.NOT_FOUND),
    }
    parameters = [group, to, _timeout()]
    return _operation("cluster", "transferLeadership", "Move a leader", parameters, responses)


def _page(tag: str, name: str, summary: str, schema: str | None) -> Json:
    responses = {"200": _json(summary, schema, _CACHE), **_problems(*_ANY_REQUEST)}
    return _operation(tag, name, summary, [], responses)


def _text(name: str, summary: str, *, media_type: str = "text/plain") -> Json:
    ok = {"description": summary, "content": {media_type: {"schema": {"type": "string"}}}}
    responses = {"200": ok, **_problems(*_ANY_REQUEST)}
    return _operation("operation", name, summary, [], responses)


def _ready() -> Json:
    operation = _text("getReadiness", "200 when this node should get traffic")
    operation["responses"].update(_problems(Kind.NOT_READY))
    return operation
