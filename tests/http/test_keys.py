"""``/v1/keys/{key}``: reading, writing, counting, expiring."""

from __future__ import annotations

import asyncio

import pytest
from front_end import Running

from raftcache.ops import INT64_MAX, INT64_MIN, Incr, Once, Set, Status
from raftcache.service import Consistency


async def test_a_value_put_is_read_back_with_its_version(http: Running) -> None:
    created = await http.send("PUT", "/v1/keys/k", b"one")
    assert (created.code, created.body) == (201, b"")
    found = await http.send("GET", "/v1/keys/k")
    assert (found.code, found.body) == (200, b"one")
    assert found.headers["content-type"] == "application/octet-stream"
    assert found.version == created.version


async def test_replacing_a_value_is_200_with_a_larger_version(http: Running) -> None:
    created = await http.send("PUT", "/v1/keys/k", b"one")
    replaced = await http.send("PUT", "/v1/keys/k", b"two")
    assert replaced.code == 200
    assert replaced.version > created.version


async def test_a_missing_key_is_a_404_problem(http: Running) -> None:
    answer = await http.send("GET", "/v1/keys/none")
    assert (answer.code, answer.problem) == (404, "key-not-found")


async def test_an_empty_value_is_a_value(http: Running) -> None:
    await http.send("PUT", "/v1/keys/k", b"")
    found = await http.send("GET", "/v1/keys/k")
    assert (found.code, found.body, found.headers["content-length"]) == (200, b"", "0")


async def test_head_tells_the_length_and_sends_no_body(http: Running) -> None:
    await http.send("PUT", "/v1/keys/k", b"12345")
    answer = await http.send("HEAD", "/v1/keys/k")
    assert (answer.code, answer.headers["content-length"], answer.version) == (200, "5", 1)


async def test_responses_must_be_revalidated_by_caches_on_the_way(http: Running) -> None:
    await http.send("PUT", "/v1/keys/k", b"1")
    assert (await http.send("GET", "/v1/keys/k")).headers["cache-control"] == "no-cache"
    assert (await http.send("GET", "/v1/keys/no")).headers["cache-control"] == "no-store"


async def test_delete_is_204_then_404(http: Running) -> None:
    await http.send("PUT", "/v1/keys/k", b"1")
    assert (await http.send("DELETE", "/v1/keys/k")).code == 204
    assert (await http.send("DELETE", "/v1/keys/k")).problem == "key-not-found"


@pytest.mark.parametrize(
    ("ttl", "milliseconds"),
    [("500ms", 500), ("30s", 30_000), ("30", 30_000), ("5m", 300_000), ("2h", 7_200_000)],
)
async def test_a_ttl_is_stored_and_shown(http: Running, ttl: str, milliseconds: int) -> None:
    await http.send("PUT", f"/v1/keys/k?ttl={ttl}", b"1")
    found = await http.send("GET", "/v1/keys/k")
    assert found.headers["raftcache-ttl-ms"] == str(milliseconds)


async def test_an_entry_without_expiry_shows_no_ttl_and_no_flags(http: Running) -> None:
    await http.send("PUT", "/v1/keys/k", b"1")
    found = await http.send("GET", "/v1/keys/k")
    assert "raftcache-ttl-ms" not in found.headers
    assert "raftcache-flags" not in found.headers


@pytest.mark.parametrize("ttl", ["0", "-1", "1y", "", "0.5ms", "99999999999999999d"])
async def test_a_ttl_that_is_none_is_refused(http: Running, ttl: str) -> None:
    answer = await http.send("PUT", f"/v1/keys/k?ttl={ttl}", b"1")
    assert (answer.code, answer.problem) == (400, "bad-request")
    assert http.service.writes == []


async def test_keep_ttl_keeps_the_expiry_of_the_entry_replaced(http: Running) -> None:
    await http.send("PUT", "/v1/keys/k?ttl=30s", b"1")
    await http.send("PUT", "/v1/keys/k?keep_ttl=true", b"2")
    found = await http.send("GET", "/v1/keys/k")
    assert (found.body, found.headers["raftcache-ttl-ms"]) == (b"2", "30000")


async def test_ttl_and_keep_ttl_exclude_each_other(http: Running) -> None:
    answer = await http.send("PUT", "/v1/keys/k?ttl=1s&keep_ttl=true", b"1")
    assert answer.problem == "bad-request"


async def test_flags_come_back(http: Running) -> None:
    await http.send("PUT", "/v1/keys/k?flags=4294967295", b"1")
    found = await http.send("GET", "/v1/keys/k")
    assert found.headers["raftcache-flags"] == "4294967295"


@pytest.mark.parametrize("flags", ["-1", "4294967296", "x", "1.0"])
async def test_flags_beyond_32_bits_are_refused(http: Running, flags: str) -> None:
    assert (await http.send("PUT", f"/v1/keys/k?flags={flags}", b"1")).code == 400


async def test_incr_counts_from_nothing(http: Running) -> None:
    first = await http.send("POST", "/v1/keys/k/incr")
    second = await http.send("POST", "/v1/keys/k/incr?by=-5")
    assert (first.code, first.json()) == (200, {"value": 1, "version": 1})
    assert second.json() == {"value": -4, "version": 2}
    assert second.version == 2


@pytest.mark.parametrize("by", [str(INT64_MAX), str(INT64_MIN)])
async def test_incr_takes_the_ends_of_the_range(http: Running, by: str) -> None:
    assert (await http.send("POST", f"/v1/keys/k/incr?by={by}")).json()["value"] == int(by)


@pytest.mark.parametrize("by", [str(INT64_MAX + 1), str(INT64_MIN - 1), "1.5", "", "+1", "9" * 99])
async def test_incr_by_what_is_no_int64_is_refused(http: Running, by: str) -> None:
    assert (await http.send("POST", f"/v1/keys/k/incr?by={by}")).problem == "bad-request"


async def test_incr_on_a_text_is_a_conflict(http: Running) -> None:
    await http.send("PUT", "/v1/keys/k", b"text")
    answer = await http.send("POST", "/v1/keys/k/incr")
    assert (answer.code, answer.problem) == (409, "not-an-integer")


async def test_incr_past_64_bits_is_a_conflict(http: Running) -> None:
    await http.send("PUT", "/v1/keys/k", str(INT64_MAX).encode())
    answer = await http.send("POST", "/v1/keys/k/incr")
    assert (answer.code, answer.problem) == (409, "overflow")


async def test_expire_sets_and_removes_the_expiry(http: Running) -> None:
    await http.send("PUT", "/v1/keys/k", b"1")
    limited = await http.send("POST", "/v1/keys/k/expire?ttl=90s")
    assert (limited.code, limited.json()) == (200, {"version": 2, "ttl_ms": 90_000})
    forever = await http.send("POST", "/v1/keys/k/expire?ttl=0")
    assert forever.json() == {"version": 3, "ttl_ms": None}
    assert "raftcache-ttl-ms" not in (await http.send("GET", "/v1/keys/k")).headers


async def test_expire_on_a_missing_key_is_404(http: Running) -> None:
    assert (await http.send("POST", "/v1/keys/k/expire?ttl=1s")).problem == "key-not-found"


async def test_expire_needs_a_ttl(http: Running) -> None:
    assert (await http.send("POST", "/v1/keys/k/expire")).problem == "bad-request"


async def test_only_a_post_takes_the_last_segment_as_an_action(http: Running) -> None:
    await http.send("PUT", "/v1/keys/a/incr", b"7")
    await http.send("POST", "/v1/keys/a/incr/incr")
    assert (await http.send("GET", "/v1/keys/a/incr")).body == b"8"
    assert (await http.send("GET", "/v1/keys/a")).code == 404


async def test_an_escaped_slash_before_incr_belongs_to_the_key(http: Running) -> None:
    answer = await http.send("POST", "/v1/keys/a%2Fincr")
    assert (answer.code, answer.headers["allow"]) == (405, "GET, HEAD, PUT, DELETE")


@pytest.mark.parametrize("method", ["PATCH", "OPTIONS", "POST", "TRACE", "PROPFIND"])
async def test_other_methods_are_405_with_allow(http: Running, method: str) -> None:
    answer = await http.send(method, "/v1/keys/k")
    assert (answer.code, answer.problem) == (405, "method-not-allowed")
    assert answer.headers["allow"] == "GET, HEAD, PUT, DELETE"


@pytest.mark.parametrize(
    ("query", "consistency", "staleness"),
    [
        ("", Consistency.LINEARIZABLE, None),
        ("?consistency=linearizable", Consistency.LINEARIZABLE, None),
        ("?consistency=lease", Consistency.LEASE, None),
        ("?consistency=stale", Consistency.STALE, None),
        ("?consistency=stale&max_staleness=250ms", Consistency.STALE, 0.25),
    ],
)
async def test_a_read_is_as_fresh_as_asked(
    http: Running, query: str, consistency: Consistency, staleness: float | None
) -> None:
    await http.send("GET", f"/v1/keys/k{query}")
    assert http.service.reads[-1][2:] == (consistency, staleness)


@pytest.mark.parametrize("query", ["consistency=weak", "max_staleness=1s", "consistency="])
async def test_a_freshness_that_is_none_is_refused(http: Running, query: str) -> None:
    assert (await http.send("GET", f"/v1/keys/k?{query}")).problem == "bad-request"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("PUT", "/v1/keys/k?tll=30s"),
        ("PUT", "/v1/keys/k?ttl=1s&ttl=2s"),
        ("GET", "/v1/keys/k?ttl=1s"),
        ("GET", "/v1/keys/k?timeout=%FF"),
        ("DELETE", "/v1/keys/k?x"),
        ("GET", "/v1/cluster?verbose=1"),
        ("POST", "/v1/batch?atomic=true"),
    ],
)
async def test_unknown_repeated_or_undecodable_parameters_are_refused(
    http: Running, method: str, target: str
) -> None:
    assert (await http.send(method, target, b"")).problem == "bad-request"


async def test_the_deadline_is_the_requests_own(http: Running) -> None:
    before = http.service.now()
    await http.send("GET", "/v1/keys/k?timeout=20s")
    deadline = http.service.reads[-1][1]
    assert before + 20 <= deadline <= http.service.now() + 20


@pytest.mark.parametrize("patience", ["0", "61s", "soon"])
async def test_a_timeout_beyond_the_limit_is_refused(http: Running, patience: str) -> None:
    assert (await http.send("GET", f"/v1/keys/k?timeout={patience}")).problem == "bad-request"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_unavailable_is_503_with_retry_after(http: Running, method: str) -> None:
    http.service.fail_with = Status.UNAVAILABLE
    answer = await http.send(method, "/v1/keys/k", b"1" if method == "PUT" else None)
    assert (answer.code, answer.problem) == (503, "unavailable")
    assert answer.headers["retry-after"] == "1"
    assert "not applied" in answer.json()["detail"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_full_disk_is_503_with_a_type_of_its_own(http: Running, method: str) -> None:
    http.service.fail_with = Status.STORAGE_FULL
    answer = await http.send(method, "/v1/keys/k", b"1" if method == "PUT" else None)
    assert (answer.code, answer.problem) == (503, "storage-full")
    assert answer.headers["retry-after"] == "1"
    assert "nothing was done" in answer.json()["detail"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_unknown_is_504_and_says_so(http: Running, method: str) -> None:
    http.service.fail_with = Status.UNKNOWN
    answer = await http.send(method, "/v1/keys/k", b"1" if method == "PUT" else None)
    assert (answer.code, answer.problem) == (504, "outcome-unknown")
    assert "may or may not have been applied" in answer.json()["detail"]


async def test_an_entry_larger_than_the_budget_is_413(http: Running) -> None:
    http.service.fail_with = Status.TOO_LARGE
    answer = await http.send("PUT", "/v1/keys/k", b"1")
    assert (answer.code, answer.problem) == (413, "exceeds-budget")


@pytest.mark.parametrize("status", [s for s in Status if s not in (Status.OK, Status.CREATED)])
async def test_every_failure_of_an_operation_is_a_problem(http: Running, status: Status) -> None:
    http.service.fail_with = status
    for method, target in [
        ("GET", "/v1/keys/k"),
        ("PUT", "/v1/keys/k"),
        ("DELETE", "/v1/keys/k"),
        ("POST", "/v1/keys/k/incr"),
        ("POST", "/v1/keys/k/expire?ttl=1s"),
    ]:
        answer = await http.send(method, target, b"")
        assert answer.problem
        assert answer.code != 500


async def test_an_idempotency_key_makes_a_write_exactly_once(http: Running) -> None:
    first = await http.send("POST", "/v1/keys/k/incr?by=3", Idempotency_Key="abc")
    again = await http.send("POST", "/v1/keys/k/incr?by=3", Idempotency_Key="abc")
    assert first.json() == again.json() == {"value": 3, "version": 1}
    assert http.service.writes[0][0] == Once(b"abc", 0, Incr(b"k", 3))


async def test_a_repeated_put_is_answered_as_the_first_was(http: Running) -> None:
    first = await http.send("PUT", "/v1/keys/k", b"1", Idempotency_Key="abc")
    again = await http.send("PUT", "/v1/keys/k", b"1", Idempotency_Key="abc")
    assert (first.code, first.version) == (again.code, again.version) == (201, 1)


async def test_a_quoted_idempotency_key_is_the_bare_one(http: Running) -> None:
    await http.send("PUT", "/v1/keys/k", b"1", Idempotency_Key='"abc"')
    assert http.service.writes[0][0] == Once(b"abc", 0, Set(b"k", b"1"))


async def test_an_idempotency_key_used_for_something_else_is_422(http: Running) -> None:
    await http.send("PUT", "/v1/keys/k", b"1", Idempotency_Key="abc")
    answer = await http.send("PUT", "/v1/keys/k", b"2", Idempotency_Key="abc")
    assert (answer.code, answer.problem) == (422, "idempotency-key-reused")


@pytest.mark.parametrize("key", ["", '""', "a b", "é", "x" * 256])
async def test_an_idempotency_key_that_is_none_is_refused(http: Running, key: str) -> None:
    answer = await http.send("PUT", "/v1/keys/k", b"1", Idempotency_Key=key)
    assert answer.problem == "bad-request"
    assert http.service.writes == []


async def test_requests_are_counted_by_operation_and_status(http: Running) -> None:
    await http.send("PUT", "/v1/keys/k", b"1")
    await http.send("HEAD", "/v1/keys/k")
    await http.send("POST", "/v1/keys/k/incr")
    await http.send("PATCH", "/v1/keys/k")
    await http.send("GET", "/nowhere")
    assert http.observed.requests == [
        ("put", 201),
        ("get", 200),
        ("incr", 200),
        ("other", 405),
        ("other", 404),
    ]


async def test_many_connections_are_served_at_once(http: Running) -> None:
    http.service.hold()
    waiting = [asyncio.create_task(http.send("PUT", f"/v1/keys/{i}", b"")) for i in range(50)]
    await http.until(lambda: len(http.service.writes) == 50)
    http.service.release()
    assert {answer.code for answer in await asyncio.gather(*waiting)} == {201}
