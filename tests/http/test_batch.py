"""``POST /v1/batch``."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from front_end import SMALL, Running
from http_wire import Answer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftcache.ops import (
    INT64_MAX,
    INT64_MIN,
    Condition,
    Delete,
    Expire,
    Get,
    Incr,
    Match,
    Once,
    Set,
    Status,
)


async def batch(http: Running, body: Any, query: str = "", **headers: str) -> Answer:
    return await http.send("POST", f"/v1/batch{query}", json.dumps(body).encode(), **headers)


async def results(http: Running, body: Any, query: str = "") -> list[dict[str, Any]]:
    answer = await batch(http, body, query)
    assert answer.code == 200, answer.body
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


async def test_results_come_in_the_order_of_the_operations(http: Running) -> None:
    assert await results(
        http,
        [
            {"op": "set", "key": "k", "value": "v", "ttl": "30s", "flags": 7},
            {"op": "get", "key": "k"},
            {"op": "incr", "key": "n", "by": 5},
            {"op": "incr", "key": "n"},
            {"op": "expire", "key": "k", "ttl": "1m"},
            {"op": "expire", "key": "k", "ttl_ms": 0},
            {"op": "delete", "key": "k"},
            {"op": "get", "key": "k"},
            {"op": "incr", "key": "n", "by": INT64_MAX},
        ],
    ) == [
        {"status": "created", "code": 201, "version": 1},
        {"status": "ok", "code": 200, "version": 1, "value": "v", "ttl_ms": 30_000, "flags": 7},
        {"status": "created", "code": 201, "version": 2, "value": 5},
        {"status": "ok", "code": 200, "version": 3, "value": 6},
        {"status": "ok", "code": 200, "version": 4, "ttl_ms": 60_000},
        {"status": "ok", "code": 200, "version": 5},
        {"status": "ok", "code": 200},
        {"status": "not_found", "code": 404},
        {"status": "overflow", "code": 409},
    ]


async def test_an_object_says_whether_the_batch_is_atomic(http: Running) -> None:
    operations = [{"op": "set", "key": "a", "value": "1"}]
    for body, atomic in [
        (operations, False),
        ({"operations": operations}, False),
        ({"operations": operations, "atomic": False}, False),
        ({"operations": operations, "atomic": True}, True),
    ]:
        await results(http, body)
        assert http.service.batches[-1] == ([Set(b"a", b"1")], atomic)


@pytest.mark.parametrize("body", [[], {"operations": []}])
async def test_an_empty_batch_has_no_results(http: Running, body: Any) -> None:
    assert await results(http, body) == []


async def test_every_field_reaches_its_operation(http: Running) -> None:
    await results(
        http,
        [
            {"op": "get", "key_base64": "/w=="},
            {"op": "set", "key": "k", "value_base64": "AP8=", "ttl_ms": 9, "if_absent": True},
            {"op": "set", "key": "k", "value": "", "keep_ttl": True, "if_exists": True},
            {"op": "delete", "key": "k", "if_version": 3},
            {"op": "incr", "key": "k", "by": INT64_MIN, "if_version": 4, "if_exists": True},
            {"op": "expire", "key": "k", "ttl": "2s", "if_absent": True, "if_version": 5},
        ],
    )
    assert http.service.batches[-1][0] == [
        Get(b"\xff"),
        Set(b"k", b"\x00\xff", 9, 0, Condition(Match.ABSENT)),
        Set(b"k", b"", 0, 0, Condition(Match.EXISTS), True),
        Delete(b"k", Condition(Match.VERSION_IN, (3,))),
        Incr(b"k", INT64_MIN, Condition(Match.VERSION_IN, (4,))),
        Expire(b"k", 2000, Condition(Match.VERSION_IN, ())),
    ]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(min_size=1, max_size=100), st.binary(max_size=300))
async def test_any_bytes_make_the_round_trip(http: Running, key: bytes, value: bytes) -> None:
    key64, value64 = b64encode(key).decode(), b64encode(value).decode()
    found = await results(
        http,
        [
            {"op": "set", "key_base64": key64, "value_base64": value64},
            {"op": "get", "key_base64": key64},
        ],
    )
    shown = found[1]
    if "value" in shown:
        assert shown["value"].encode() == value
    else:
        assert shown["value_base64"] == value64
    read = {"op": "get", "key_base64": key64}
    assert (await results(http, [read], "?encoding=base64"))[0]["value_base64"] == value64


@pytest.mark.parametrize(
    ("operation", "complaint"),
    [
        ({"op": "get"}, "'key' and 'key_base64'"),
        ({"op": "get", "key": "k", "key_base64": "aw=="}, "'key' and 'key_base64'"),
        ({"op": "get", "key": ""}, "key is empty"),
        ({"op": "get", "key_base64": "a"}, "base64"),
        ({"op": "get", "key": 5}, "$[1].key"),
        ({"op": "get", "key": "k", "value": "v"}, "unknown field `value`"),
        ({"op": "set", "key": "k"}, "'value' and 'value_base64'"),
        ({"op": "set", "key": "k", "value": 5}, "$[1].value"),
        ({"op": "set", "key": "k", "value": "v", "tll": "5s"}, "unknown field `tll`"),
        ({"op": "set", "key": "k", "value": "v", "ttl": "soon"}, "is not a duration"),
        ({"op": "set", "key": "k", "value": "v", "ttl": "0"}, "at least 1ms"),
        ({"op": "set", "key": "k", "value": "v", "ttl": 5}, "$[1].ttl"),
        ({"op": "set", "key": "k", "value": "v", "ttl": "5s", "ttl_ms": 5}, "one of 'ttl'"),
        ({"op": "set", "key": "k", "value": "v", "ttl": "5s", "keep_ttl": True}, "exclude"),
        ({"op": "set", "key": "k", "value": "v", "ttl_ms": -1}, "$[1].ttl_ms"),
        ({"op": "set", "key": "k", "value": "v", "flags": 2**32}, "$[1].flags"),
        ({"op": "set", "key": "k", "value": "v", "if_version": 0}, "$[1].if_version"),
        ({"op": "incr", "key": "k", "by": INT64_MAX + 1}, "$[1].by"),
        ({"op": "incr", "key": "k", "by": 1.5}, "$[1].by"),
        ({"op": "expire", "key": "k"}, "expire needs"),
        ({"op": "expire", "key": "k", "ttl": "999999999d"}, "at most"),
        ({"op": "explode", "key": "k"}, "explode"),
        ({"key": "k"}, "op"),
        ("get", "$[1]"),
    ],
)
async def test_a_malformed_operation_refuses_the_whole_batch(
    http: Running, operation: Any, complaint: str
) -> None:
    answer = await batch(http, [{"op": "set", "key": "k", "value": "v"}, operation])
    assert (answer.code, answer.problem) == (400, "bad-request")
    assert complaint in answer.json()["detail"]
    assert http.service.batches == []


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"5", b'"x"', b"{}", b"[", b"\xff", b"[" * 60_000, b'{"operations": 1}'],
)
async def test_a_body_that_is_no_batch_is_refused(http: Running, body: bytes) -> None:
    assert (await http.send("POST", "/v1/batch", body)).problem == "bad-request"


async def test_a_lone_surrogate_in_a_key_is_refused(http: Running) -> None:
    body = b'[{"op": "get", "key": "\\ud800"}]'
    assert (await http.send("POST", "/v1/batch", body)).problem == "bad-request"


async def test_a_misspelt_option_of_the_batch_is_refused(http: Running) -> None:
    assert (await batch(http, {"operations": [], "atomik": True})).problem == "bad-request"


async def test_a_key_or_value_too_large_refuses_the_whole_batch(http: Running) -> None:
    key = await batch(http, [{"op": "get", "key": "k" * 1025}])
    assert (key.code, key.problem) == (413, "key-too-large")
    value = "v" * (SMALL.max_value_bytes + 1)
    answer = await batch(http, [{"op": "set", "key": "k", "value": value}])
    assert (answer.code, answer.problem) == (413, "value-too-large")
    assert answer.json()["detail"].startswith("Operation 0:")
    assert http.service.batches == []


async def test_too_many_operations_are_413(http: Running) -> None:
    answer = await batch(http, [{"op": "get", "key": "k"}] * (SMALL.max_batch_operations + 1))
    assert (answer.code, answer.problem) == (413, "batch-too-large")


async def test_too_many_bytes_are_413(http: Running) -> None:
    answer = await http.send("POST", "/v1/batch", b" " * (SMALL.max_batch_bytes + 1))
    assert (answer.code, answer.problem) == (413, "batch-too-large")


@pytest.mark.parametrize("declared", ["application/json", "Application/JSON; charset=utf-8"])
async def test_json_may_be_declared(http: Running, declared: str) -> None:
    assert (await batch(http, [], Content_Type=declared)).code == 200


async def test_another_media_type_is_415(http: Running) -> None:
    answer = await batch(http, [], Content_Type="application/x-www-form-urlencoded")
    assert (answer.code, answer.problem) == (415, "unsupported-media-type")


async def test_a_compressed_batch_is_415(http: Running) -> None:
    assert (await batch(http, [], Content_Encoding="gzip")).code == 415


async def test_an_idempotency_key_makes_each_write_exactly_once(http: Running) -> None:
    body = [{"op": "incr", "key": "a"}, {"op": "get", "key": "a"}, {"op": "delete", "key": "b"}]
    first = await batch(http, body, Idempotency_Key="abc")
    assert http.service.batches[-1][0] == [
        Once(b"abc#0", 0, Incr(b"a")),
        Get(b"a"),
        Once(b"abc#2", 0, Delete(b"b")),
    ]
    again = await batch(http, body, Idempotency_Key="abc")
    assert first.json() == again.json()


async def test_an_atomic_batch_is_done_whole_or_not_at_all(http: Running) -> None:
    operations = [
        {"op": "set", "key": "a", "value": "1"},
        {"op": "set", "key": "b", "value": "2", "if_exists": True},
    ]
    found = await results(http, {"operations": operations, "atomic": True})
    assert [shown["status"] for shown in found] == ["aborted", "precondition_failed"]
    assert http.service.stored(b"a") is None


async def test_an_atomic_batch_with_an_idempotency_key_is_done_once(http: Running) -> None:
    body = {"operations": [{"op": "incr", "key": "a"}, {"op": "get", "key": "a"}], "atomic": True}
    first = await batch(http, body, Idempotency_Key="abc")
    again = await batch(http, body, Idempotency_Key="abc")
    assert first.json() == again.json()
    assert first.json()["results"][0]["value"] == 1
    assert http.service.stored(b"a") == b"1"


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (Status.UNAVAILABLE, {"status": "unavailable", "code": 503}),
        (Status.STORAGE_FULL, {"status": "storage_full", "code": 503}),
        (Status.UNKNOWN, {"status": "unknown", "code": 504}),
        (Status.ABORTED, {"status": "aborted", "code": 424}),
        (Status.TOO_LARGE, {"status": "too_large", "code": 413}),
    ],
)
async def test_each_operation_tells_how_it_ended(
    http: Running, status: Status, shown: dict[str, Any]
) -> None:
    http.service.fail_with = status
    assert await results(http, [{"op": "get", "key": "k"}]) == [shown]


@pytest.mark.parametrize("query", ["?encoding=hex", "?timeout=never", "?nonsense=1"])
async def test_a_wrong_parameter_is_refused(http: Running, query: str) -> None:
    assert (await batch(http, [], query)).problem == "bad-request"


async def test_a_batch_takes_only_post(http: Running) -> None:
    answer = await http.send("GET", "/v1/batch")
    assert (answer.code, answer.headers["allow"]) == (405, "POST")
