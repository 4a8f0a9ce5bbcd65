"""The userspace switch of bad links, without packets: what comes out when, and how often."""

from __future__ import annotations

import random

from jepsen_like.run.detour import QUEUE_LIMIT_BYTES, Switch
from jepsen_like.run.system import HEALTHY, Link

SYN = 0x02
ACK = 0x10


def tcp(number: int, port: int = 1000, flags: int = ACK) -> bytes:
    """An IPv4 packet of a TCP connection, as far as the switch looks at it."""
    packet = bytearray(60)
    packet[0], packet[9], packet[33] = 0x45, 6, flags
    packet[20:22] = port.to_bytes(2, "big")
    packet[40:44] = number.to_bytes(4, "big")
    return bytes(packet)


def number_of(packet: bytes) -> int:
    return int.from_bytes(packet[40:44], "big")


def through(switch: Switch, count: int, every_s: float = 0.001) -> list[tuple[float, int]]:
    """When each packet of ``count``, sent from a to b at intervals, comes out, to a millisecond."""
    out: list[tuple[float, int]] = []
    for step in range(count + 3000):
        now = step * every_s
        if step < count:
            switch.take("a", "b", tcp(step), now)
        for target, packet in switch.due(now):
            assert target == "b"
            out.append((now, number_of(packet)))
    assert switch.next_due() is None
    return out


def test_a_healthy_direction_holds_nothing_up() -> None:
    switch = Switch(random.Random(1))
    switch.shape("a", "b", HEALTHY)
    assert through(switch, 50) == [(step * 0.001, step) for step in range(50)]


def test_jitter_delays_within_its_bounds_and_keeps_the_order() -> None:
    switch = Switch(random.Random(2))
    switch.shape("a", "b", Link(delay_s=0.1, jitter_s=0.05))
    out = through(switch, 200)
    assert [number for _, number in out] == list(range(200))
    waits = [when - number * 0.001 for when, number in out]
    assert min(waits) >= 0.1 - 1e-9 and max(waits) <= 0.152
    assert max(waits) - min(waits) > 0.01


def test_reordered_packets_overtake_and_none_is_lost() -> None:
    switch = Switch(random.Random(3))
    switch.shape("a", "b", Link(delay_s=0.05, reorder=0.2))
    numbers = [number for _, number in through(switch, 200)]
    assert sorted(numbers) == list(range(200)) and numbers != sorted(numbers)


def test_some_packets_come_twice() -> None:
    switch = Switch(random.Random(4))
    switch.shape("a", "b", Link(duplicate=0.25))
    numbers = [number for _, number in through(switch, 400)]
    assert set(numbers) == set(range(400)) and 450 < len(numbers) < 550
    assert max(numbers.count(number) for number in set(numbers)) == 2


def test_a_rate_spaces_packets_and_a_full_queue_drops_them() -> None:
    switch = Switch(random.Random(5))
    switch.shape("a", "b", Link(bytes_per_s=6000))  # a hundred packets a second
    out = through(switch, 100)
    assert [number for _, number in out] == list(range(100))
    assert 0.97 < out[-1][0] <= 1.01
    switch.shape("a", "b", Link(bytes_per_s=1))
    for number in range(QUEUE_LIMIT_BYTES // 60 + 10):
        switch.take("a", "b", tcp(number), 5.0)
    assert len(switch.due(1e12)) == QUEUE_LIMIT_BYTES // 60


def test_only_connections_older_than_the_hold_are_held() -> None:
    switch = Switch(random.Random(6))
    switch.hold("a", "b", 0.5)
    switch.take("a", "b", tcp(0, port=1000), 0.0)
    switch.take("a", "b", tcp(1, port=2000, flags=SYN), 0.0)
    switch.take("a", "b", tcp(2, port=2000), 0.0)
    assert [number_of(packet) for _, packet in switch.due(0.0)] == [1, 2]
    assert [number_of(packet) for _, packet in switch.due(0.5)] == [0]
    switch.hold("a", "b", 0.0)
    switch.take("a", "b", tcp(3, port=1000), 1.0)
    assert [number_of(packet) for _, packet in switch.due(1.0)] == [3]
