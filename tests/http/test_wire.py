"""What no client library sends: odd framing, early answers, pipelines, garbage."""

from __future__ import annotations

import gzip

import pytest
from front_end import SMALL, Running
from http_wire import request

from raftcache.ops import Set, Status

LIMIT = SMALL.max_value_bytes


async def test_a_value_of_the_largest_size_fits(http: Running) -> None:
    assert (await http.send("PUT", "/v1/keys/k", b"v" * LIMIT)).code == 201


async def test_an_announced_value_too_large_is_refused_before_its_body(http: Running) -> None:
    wire = await http.connect()
    wire.send(request("PUT", "/v1/keys/k", None, {"Content-Length": str(LIMIT + 1)}))
    answer = await wire.answer()
    assert (answer.code, answer.problem) == (413, "value-too-large")
    assert answer.headers["connection"] == "close"
    wire.close()


async def test_a_terabyte_is_refused_before_its_body(http: Running) -> None:
    wire = await http.connect()
    wire.send(request("PUT", "/v1/keys/k", None, {"Content-Length": str(2**40)}))
    assert (await wire.answer()).code == 413
    wire.close()


async def test_a_chunked_value_is_stored_whole(http: Running) -> None:
    wire = await http.connect()
    wire.send(request("PUT", "/v1/keys/k", None, {"Transfer-Encoding": "chunked"}))
    wire.send(b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n")
    assert (await wire.answer()).code == 201
    assert http.service.stored(b"k") == b"abcdefg"
    wire.close()


async def test_a_chunked_value_is_cut_off_as_it_passes_the_limit(http: Running) -> None:
    wire = await http.connect()
    wire.send(request("PUT", "/v1/keys/k", None, {"Transfer-Encoding": "chunked"}))
    wire.send(b"1001\r\n" + b"v" * 0x1001 + b"\r\n")  # and no end
    answer = await wire.answer()
    assert (answer.code, answer.problem) == (413, "value-too-large")
    wire.close()


async def test_a_broken_chunk_is_a_bad_request(http: Running) -> None:
    wire = await http.connect()
    wire.send(request("PUT", "/v1/keys/k", None, {"Transfer-Encoding": "chunked"}))
    wire.send(b"zz\r\n")
    assert (await wire.answer()).problem == "bad-request"
    assert http.service.writes == []
    wire.close()


async def test_expect_100_continue_asks_for_the_body(http: Running) -> None:
    wire = await http.connect()
    headers = {"Expect": "100-continue", "Content-Length": "3"}
    wire.send(request("PUT", "/v1/keys/k", None, headers))
    assert (await wire.answer()).code == 100
    wire.send(b"abc")
    assert (await wire.answer()).code == 201
    assert http.service.stored(b"k") == b"abc"
    wire.close()


async def test_expect_100_continue_is_answered_413_without_a_100(http: Running) -> None:
    wire = await http.connect()
    headers = {"Expect": "100-continue", "Content-Length": str(LIMIT + 1)}
    wire.send(request("PUT", "/v1/keys/k", None, headers))
    assert (await wire.answer()).code == 413
    wire.close()


async def test_expect_100_continue_is_answered_400_without_a_100(http: Running) -> None:
    wire = await http.connect()
    headers = {"Expect": "100-continue", "Content-Length": "3"}
    wire.send(request("PUT", "/v1/keys/k?ttl=never", None, headers))
    assert (await wire.answer()).code == 400
    wire.close()


async def test_another_expectation_is_417(http: Running) -> None:
    answer = await http.send("PUT", "/v1/keys/k", b"abc", Expect="the-unexpected")
    assert (answer.code, answer.problem) == (417, "expectation-failed")


async def test_a_body_that_never_comes_is_408(http: Running) -> None:
    wire = await http.connect()
    wire.send(request("PUT", "/v1/keys/k?timeout=1ms", None, {"Content-Length": "3"}))
    answer = await wire.answer()
    assert (answer.code, answer.problem) == (408, "request-timeout")
    assert http.service.writes == []
    wire.close()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, identity"])
async def test_a_content_coding_is_refused_and_never_undone(http: Running, coding: str) -> None:
    body = gzip.compress(b"value")
    answer = await http.send("PUT", "/v1/keys/k", body, Content_Encoding=coding)
    assert (answer.code, answer.problem) == (415, "unsupported-media-type")
    assert answer.headers["accept-encoding"] == "identity"


async def test_compressed_bytes_without_the_header_are_stored_untouched(http: Running) -> None:
    body = gzip.compress(b"value")
    await http.send("PUT", "/v1/keys/k", body)
    assert (await http.send("GET", "/v1/keys/k", Accept_Encoding="gzip")).body == body


async def test_a_part_of_a_value_is_refused(http: Running) -> None:
    answer = await http.send("PUT", "/v1/keys/k", b"abc", Content_Range="bytes 0-2/9")
    assert answer.problem == "bad-request"


async def test_pipelined_requests_are_answered_in_order(http: Running) -> None:
    wire = await http.connect()
    wire.send(
        b"".join(request("PUT", f"/v1/keys/{i}", b"%d" % i, {}) for i in range(100))
        + b"".join(request("GET", f"/v1/keys/{i}", None, {}) for i in range(100))
    )
    assert [(await wire.answer()).code for _ in range(100)] == [201] * 100
    assert [(await wire.answer()).body for _ in range(100)] == [b"%d" % i for i in range(100)]
    wire.close()


async def test_a_request_may_come_byte_by_byte(http: Running) -> None:
    wire = await http.connect()
    for byte in request("PUT", "/v1/keys/a%2Fb", b"xyz", {}):
        wire.send(bytes([byte]))
        await wire.writer.drain()
    assert (await wire.answer()).code == 201
    assert http.service.stored(b"a/b") == b"xyz"
    wire.close()


async def test_http_1_0_is_answered_and_closed(http: Running) -> None:
    wire = await http.connect()
    wire.send(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert (await wire.answer()).code == 200
    assert await wire.ended()


async def test_http_1_0_keeps_alive_when_asked(http: Running) -> None:
    wire = await http.connect()
    for _ in range(2):
        wire.send(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (await wire.answer()).headers["connection"] == "keep-alive"
    wire.close()


async def test_connection_close_is_honoured(http: Running) -> None:
    wire = await http.connect()
    wire.send(request("GET", "/healthz", None, {"Connection": "close"}))
    assert (await wire.answer()).headers["connection"] == "close"
    assert await wire.ended()


async def test_a_body_on_a_get_does_not_spoil_the_next_request(http: Running) -> None:
    wire = await http.connect()
    wire.send(request("GET", "/v1/keys/k", b"GET /x HTTP/1.1\r\n\r\n", {}))
    wire.send(request("GET", "/healthz", None, {}))
    assert [(await wire.answer()).code for _ in range(2)] == [404, 200]
    wire.close()


async def test_an_offered_upgrade_is_declined_by_answering(http: Running) -> None:
    wire = await http.connect()
    wire.send(request("GET", "/healthz", None, {"Upgrade": "websocket", "Connection": "Upgrade"}))
    wire.send(request("GET", "/healthz", None, {}))
    assert [(await wire.answer()).code for _ in range(2)] == [200, 200]
    wire.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nbroken header\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"PUT /v1/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_a_bad_request(http: Running, garbage: bytes) -> None:
    wire = await http.connect()
    wire.send(garbage)
    answer = await wire.answer()
    assert (answer.code, answer.problem) == (400, "bad-request")
    assert await wire.ended()


async def test_too_many_headers_are_431(http: Running) -> None:
    wire = await http.connect()
    wire.send(request("GET", "/healthz", None, {f"X-{i}": "y" for i in range(500)}))
    answer = await wire.answer()
    assert (answer.code, answer.problem) == (431, "headers-too-large")
    wire.close()


async def test_a_header_too_long_is_431(http: Running) -> None:
    wire = await http.connect()
    wire.send(request("GET", "/healthz", None, {"X": "y" * 100_000}))
    answer = await wire.answer()
    assert (answer.code, answer.problem) == (431, "headers-too-large")
    wire.close()


async def test_a_client_that_leaves_disturbs_nobody(http: Running) -> None:
    http.service.hold()
    wire = await http.connect()
    wire.send(request("PUT", "/v1/keys/k", b"1", {}))
    other = await http.connect()
    other.send(request("PUT", "/v1/keys/k", None, {"Content-Length": "9"}) + b"half")
    await http.until(lambda: len(http.service.writes) == 1)
    wire.close()
    other.close()
    http.service.release()
    assert (await http.send("GET", "/v1/keys/k")).body == b"1"


async def test_a_slow_reader_gets_the_whole_value(http: Running) -> None:
    http.service.apply(Set(b"big", b"v" * 5_000_000))
    wire = await http.connect()
    wire.send(request("GET", "/v1/keys/big", None, {}) * 3)
    for _ in range(3):
        assert (await wire.answer()).body == b"v" * 5_000_000
    wire.close()


async def test_failures_keep_the_connection(http: Running) -> None:
    wire = await http.connect()
    http.service.fail_with = Status.UNAVAILABLE
    wire.send(request("PUT", "/v1/keys/k", b"1", {}))
    assert (await wire.answer()).code == 503
    http.service.fail_with = None
    wire.send(request("PUT", "/v1/keys/k", b"1", {}))
    assert (await wire.answer()).code == 201
    wire.close()


async def test_connect_is_refused(http: Running) -> None:
    wire = await http.connect()
    wire.send(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n")
    assert (await wire.answer()).code in (400, 404, 405)
    wire.close()
