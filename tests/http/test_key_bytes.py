"""A key is the bytes behind ``/v1/keys/`` after percent-decoding, whatever they are."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote_from_bytes

import pytest
from front_end import Running
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

KEYS = st.binary(min_size=1, max_size=1024)
VALUES = st.binary(max_size=4096)


def every_byte_escaped(key: bytes) -> str:
    return "".join(f"%{byte:02x}" for byte in key)


ESCAPES: list[Callable[[bytes], str]] = [
    quote_from_bytes,
    every_byte_escaped,
    lambda key: quote_from_bytes(key, safe=""),
]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(KEYS, st.sampled_from(ESCAPES), VALUES)
async def test_any_key_and_any_value_make_the_round_trip(
    http: Running, key: bytes, escape: Callable[[bytes], str], value: bytes
) -> None:
    target = "/v1/keys/" + escape(key)
    assert (await http.send("PUT", target, value)).code in (200, 201)
    assert http.service.stored(key) == value
    assert (await http.send("GET", target)).body == value


@pytest.mark.parametrize(
    ("target", "key"),
    [
        ("/v1/keys/a/b", b"a/b"),
        ("/v1/keys/a%2Fb", b"a/b"),
        ("/v1/keys//", b"/"),
        ("/v1/keys/a+b", b"a+b"),
        ("/v1/keys/%00", b"\x00"),
        ("/v1/keys/%ff%FE", b"\xff\xfe"),
        ("/v1/keys/../x/./y", b"../x/./y"),
        ("/v1/keys/%3F%23", b"?#"),
        ("/v1/keys/%25", b"%"),
        ("/v1/keys/%2541", b"%41"),
        ("/v1/keys/a;b=c,d", b"a;b=c,d"),
        ("/v1/keys/k?", b"k"),
        ("http://somewhere:80/v1/keys/k", b"k"),
    ],
)
async def test_a_target_names_these_bytes(http: Running, target: str, key: bytes) -> None:
    assert (await http.send("PUT", target, b"v")).code == 201
    assert http.service.stored(key) == b"v"


@pytest.mark.parametrize("raw", ["schlüssel", "a#b"])
async def test_what_no_uri_may_contain_has_to_be_escaped(http: Running, raw: str) -> None:
    assert (await http.send("PUT", f"/v1/keys/{raw}", b"v")).problem == "bad-request"


@pytest.mark.parametrize("raw", ["%", "a%2", "%zz", "%2", "%%41", "%u0041"])
async def test_a_broken_escape_is_refused(http: Running, raw: str) -> None:
    assert (await http.send("GET", f"/v1/keys/{raw}")).problem == "bad-request"


@pytest.mark.parametrize("target", ["/v1/keys/", "/v1/keys/?ttl=1s"])
async def test_an_empty_key_is_refused(http: Running, target: str) -> None:
    assert (await http.send("PUT", target, b"v")).problem == "bad-request"


async def test_an_empty_key_cannot_be_counted(http: Running) -> None:
    assert (await http.send("POST", "/v1/keys//incr")).problem == "bad-request"


async def test_the_longest_key_fits_and_one_byte_more_is_413(http: Running) -> None:
    longest = "%ff" * 1024
    assert (await http.send("PUT", f"/v1/keys/{longest}", b"v")).code == 201
    answer = await http.send("PUT", f"/v1/keys/{longest}x", b"v")
    assert (answer.code, answer.problem) == (413, "key-too-large")


async def test_a_key_beyond_any_line_is_414(http: Running) -> None:
    answer = await http.send("GET", "/v1/keys/" + "k" * 20_000)
    assert (answer.code, answer.problem) == (414, "uri-too-long")
    assert answer.headers["connection"] == "close"
