"""The requests of a load: well formed, of the keys that were asked for, and all of them."""

from __future__ import annotations

import base64
import collections
import itertools
import json
import random

import hiredis
from hypothesis import given
from hypothesis import strategies as st

from raftcache.bench.dialects import http_request, resp_request
from raftcache.bench.workload import Workload, filling, numbers, requests


def commands(pieces: list[bytes]) -> list[list[bytes]]:
    reader = hiredis.Reader()
    for piece in pieces:
        reader.feed(piece)
    found = []
    while (command := reader.gets()) is not False:
        found.append(command)
    return found


@given(
    st.sampled_from(["set", "get", "mixed", "incr"]),
    st.integers(1, 10**9),
    st.integers(0, 200),
    st.integers(1, 20),
)
def test_every_piece_is_a_pipeline_of_commands_of_keys_below_the_limit(
    name: str, keys: int, value_bytes: int, pipeline: int
) -> None:
    workload = Workload(name, keys, value_bytes, 0.0, pipeline)
    pieces = list(itertools.islice(requests(workload, resp_request), 20))
    for piece in pieces:
        found = commands([piece])
        assert len(found) == pipeline
        for verb, key, *value in found:
            assert len(key) == 16
            assert int(key[4:]) < keys
            assert (
                verb
                in {
                    "set": (b"SET",),
                    "get": (b"GET",),
                    "incr": (b"INCR",),
                    "mixed": (b"SET", b"GET"),
                }[name]
            )
            assert value == ([workload.value()] if verb == b"SET" else [])


def test_a_percent_sign_in_a_request_stays_what_it_is() -> None:
    def make(op: str, number: str, value: bytes) -> bytes:
        return f"100% of {number} %d".encode()

    piece = next(requests(Workload("set", 1, pipeline=2), make, closing=b"5%"))
    assert piece == b"100% of 000000000000 %d" * 2 + b"5%"


@given(st.integers(1, 500), st.integers(1, 64))
def test_filling_stores_every_key_and_none_else(keys: int, pipeline: int) -> None:
    pieces = list(filling(Workload("get", keys), resp_request, pipeline))
    stored = [int(key[4:]) for _, key, _ in commands(pieces)]
    assert set(stored) == set(range(keys))
    assert len(stored) == len(pieces) * pipeline < keys + pipeline


def test_a_large_key_space_is_used_in_full_and_without_repetition() -> None:
    drawn = itertools.islice(numbers(random.Random(1), 10_000_000, 0.0), 100_000)
    assert len({int(number) for number in drawn}) > 99_000


@given(st.integers(1, 1000), st.floats(0.5, 2.0))
def test_skewed_keys_are_below_the_limit(keys: int, zipf: float) -> None:
    drawn = itertools.islice(numbers(random.Random(1), keys, zipf), 200)
    assert all(0 <= number < keys for number in drawn)


def test_skewed_keys_are_as_popular_as_zipf_says() -> None:
    drawn = list(itertools.islice(numbers(random.Random(1), 1000, 1.0), 100_000))
    counts = [count for _, count in collections.Counter(drawn).most_common()]
    harmonic = sum(1 / n for n in range(1, 1001))
    for rank in (1, 2, 10):
        expected = 100_000 / rank / harmonic
        assert 0.8 * expected < counts[rank - 1] < 1.2 * expected


def test_mixed_is_nine_reads_to_a_write() -> None:
    pieces = itertools.islice(requests(Workload("mixed", pipeline=10), resp_request), 1000)
    verbs = collections.Counter(verb for verb, *_ in commands(list(pieces)))
    assert 0.88 < verbs[b"GET"] / 10_000 < 0.92


def test_an_http_request_says_how_long_its_body_is() -> None:
    piece = next(requests(Workload("set", 1, 7), http_request))
    head, _, body = piece.partition(b"\r\n\r\n")
    assert head.startswith(b"PUT /v1/keys/key:000000000000 HTTP/1.1\r\n")
    assert b"Content-Length: 7" in head
    assert body == b"xxxxxxx"


@given(st.integers(0, 10**12 - 1), st.integers(0, 10**12 - 1))
def test_etcds_keys_are_16_bytes_and_differ_when_their_numbers_do(one: int, other: int) -> None:
    from peers import load_peers

    load_peers()
    from peers.etcd import request

    def key(number: int) -> bytes:
        message = request("get", f"{number:012d}", b"")
        return base64.b64decode(json.loads(message.partition(b"\r\n\r\n")[2])["key"], validate=True)

    assert len(key(one)) == 16
    assert (key(one) == key(other)) == (one == other)
