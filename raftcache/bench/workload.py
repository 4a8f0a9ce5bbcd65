"""What is asked: operations over a key space, as bytes of some protocol.

A request differs from the next one of its kind only in the twelve digits of its key's number. So it
is formatted from a template as it is sent, in C without one Python frame: 0.15 us, of the 8 us that
a request costs its client. Every draw is new: nothing repeats, however many keys there are.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import operator
import random
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

SEED: Final = 20_241
WORKLOADS: Final = ("set", "get", "mixed", "incr")
MIXED_READS: Final = 0.9
NUMBER: Final = "<number-12d>"
"""Stands in a template for the key's number, and is as long as it."""
_MIXTURES: Final = 997
"""Different orders of reads and writes in the pipelines of ``mixed``."""

Make = Callable[[str, str, bytes], bytes]
"""(set, get or incr; ``NUMBER``; value) to the bytes of a request, with ``NUMBER`` where the number
of the key belongs."""


class Workload(msgspec.Struct, frozen=True):
    """``zipf`` 0: all keys alike; else the exponent of their popularity. ``mixed`` is nine reads to
    a write."""

    name: str
    keys: int = 10_000
    value_bytes: int = 100
    zipf: float = 0.0
    pipeline: int = 1

    @property
    def reads(self) -> bool:
        """Whether its keys have to be there."""
        return self.name in ("get", "mixed")

    def value(self) -> bytes:
        """Every value."""
        return b"x" * self.value_bytes


def key(op: str, number: str = NUMBER) -> str:
    """The name of a key: 16 bytes."""
    return f"{'ctr' if op == 'incr' else 'key'}:{number}"


def numbers(draw: random.Random, keys: int, zipf: float) -> Iterator[float]:
    """Numbers below ``keys`` without end, whose whole part counts. With ``zipf`` the n-th most
    popular of them is drawn in proportion to 1 / n**zipf; which number is the n-th is shuffled."""
    chances = iter(draw.random, None)
    if zipf <= 0:
        return map(float(keys).__mul__, chances)
    weights = list(itertools.accumulate(1.0 / n**zipf for n in range(1, keys + 1)))
    order = list(range(keys))
    draw.shuffle(order)
    rank = functools.partial(bisect.bisect, weights, hi=keys - 1)
    return map(order.__getitem__, map(rank, map(weights[-1].__mul__, chances)))


def requests(workload: Workload, make: Make, closing: bytes = b"") -> Iterator[bytes]:
    """What the connections send, one piece at a time and without end: a pipeline of requests, with
    ``closing`` after it."""
    draw = random.Random(SEED)
    templates = itertools.cycle(list(_templates(workload, make, closing, draw)))
    return _formatted(templates, numbers(draw, workload.keys, workload.zipf), workload.pipeline)


def filling(workload: Workload, make: Make, pipeline: int) -> Iterator[bytes]:
    """Requests that store every key once, ``pipeline`` at a time; the first ones again where the
    last pipeline would not be full."""
    everything = itertools.islice(
        itertools.cycle(range(workload.keys)), -(-workload.keys // pipeline) * pipeline
    )
    template = _template("set", workload.value(), make) * pipeline
    return _formatted(itertools.repeat(template), everything, pipeline)


def _templates(
    workload: Workload, make: Make, closing: bytes, draw: random.Random
) -> Iterator[bytes]:
    value, end = workload.value(), closing.replace(b"%", b"%%")
    if workload.name != "mixed":
        yield _template(workload.name, value, make) * workload.pipeline + end
        return
    read, write = _template("get", value, make), _template("set", value, make)
    for _ in range(_MIXTURES):
        drawn = (draw.random() < MIXED_READS for _ in range(workload.pipeline))
        yield b"".join(read if reads else write for reads in drawn) + end


def _template(op: str, value: bytes, make: Make) -> bytes:
    made = make(op, NUMBER, value).replace(b"%", b"%%")
    return made.replace(NUMBER.encode(), b"%012d")


def _formatted(
    templates: Iterator[bytes], numbers: Iterator[float], pipeline: int
) -> Iterator[bytes]:
    many = numbers if pipeline == 1 else zip(*[numbers] * pipeline, strict=False)
    return map(operator.mod, templates, many)
