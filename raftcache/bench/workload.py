"""What is asked: operations over a key space, as bytes of either protocol, made in advance."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

PREPARED: Final = 20_000
"""Different requests made in advance; they repeat after that."""
SEED: Final = 20_241
WORKLOADS: Final = ("set", "get", "mixed", "incr")
MIXED_READS: Final = 0.9


class Workload(msgspec.Struct, frozen=True):
    """``zipf`` 0: all keys alike; else the exponent of their popularity. ``mixed`` is nine reads to
    a write."""

    name: str
    keys: int = 10_000
    value_bytes: int = 100
    zipf: float = 0.0
    pipeline: int = 1

    def operations(self) -> Iterator[tuple[str, str]]:
        """(set, get or incr; key), as many as are prepared."""
        draw = random.Random(SEED)
        numbers = key_numbers(draw, self.keys, self.zipf, PREPARED)
        for number in numbers:
            op = self.name
            if op == "mixed":
                op = "get" if draw.random() < MIXED_READS else "set"
            prefix = "ctr" if op == "incr" else "key"
            yield op, f"{prefix}:{number:012d}"

    def value(self) -> bytes:
        """Every value."""
        return b"x" * self.value_bytes


def key_numbers(draw: random.Random, keys: int, zipf: float, count: int) -> list[int]:
    """``count`` numbers below ``keys``. With ``zipf`` the n-th most popular of them is drawn in
    proportion to 1 / n**zipf; which number is the n-th is shuffled."""
    if zipf <= 0:
        return [draw.randrange(keys) for _ in range(count)]
    weights = list(itertools.accumulate(1.0 / n**zipf for n in range(1, keys + 1)))
    order = list(range(keys))
    draw.shuffle(order)
    return [order[n] for n in draw.choices(range(keys), cum_weights=weights, k=count)]


def resp_request(op: str, key: str, value: bytes) -> bytes:
    """One command."""
    parts = {"set": [b"SET", key.encode(), value], "get": [b"GET", key.encode()]}.get(
        op, [b"INCR", key.encode()]
    )
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)


def http_request(op: str, key: str, value: bytes) -> bytes:
    """One request."""
    path = f"/v1/keys/{key}".encode()
    if op == "get":
        return b"GET %b HTTP/1.1\r\nHost: bench\r\n\r\n" % path
    if op == "incr":
        return b"POST %b/incr HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\n\r\n" % path
    head = b"PUT %b HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n" % (path, len(value))
    return head + value


def prepared(workload: Workload, make: Callable[[str, str, bytes], bytes]) -> list[bytes]:
    """What the connections send, one piece at a time: pipelines of requests."""
    value = workload.value()
    requests = [make(op, key, value) for op, key in workload.operations()]
    depth = workload.pipeline
    return [b"".join(requests[i : i + depth]) for i in range(0, len(requests) - depth + 1, depth)]


def filling(workload: Workload, make: Callable[[str, str, bytes], bytes]) -> list[bytes]:
    """Requests that store every key that will be read."""
    if workload.name not in ("get", "mixed"):
        return []
    value = workload.value()
    keys = dict.fromkeys(key for _, key in workload.operations())
    return [make("set", key, value) for key in keys]
