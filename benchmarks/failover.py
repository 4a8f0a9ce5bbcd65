"""How long no write of a group succeeds when the node that leads it dies, hangs or stops.

    python benchmarks/failover.py [--tries 20] [--durable] [--writers 8]

For each try: three nodes, writers that keep writing keys of the victim's groups through the other
two nodes (each with a deadline of 250 ms), then kill -9, SIGTERM or SIGSTOP of the victim. The gap
is the longest time between two acknowledged writes around that moment. Prints min, median and max
over the tries, in milliseconds."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
import statistics
import sys
import time
from http.client import HTTPConnection

import uvloop
from load import request, run

from raftcache.demo import Cluster, Plan, cluster_status
from raftcache.partition import SlotMap

GROUPS = 4
SETTLE_S = 1.0
AFTER_S = 3.0


def keys_of(groups: set[int]) -> list[str]:
    """A thousand keys that belong to these groups."""
    slots = SlotMap(GROUPS)
    named = (f"key-{i}" for i in itertools.count())
    return list(itertools.islice((k for k in named if slots.group_of(k.encode()) in groups), 1000))


def victim_and_groups(cluster: Cluster) -> tuple[int, set[int]]:
    """Position of the node that leads most groups, and these groups."""
    status = cluster_status(cluster.urls[0])
    assert status is not None
    led: dict[str, set[int]] = {node.id: set() for node in cluster.nodes}
    for group in status["groups"]:
        led[group["leader"]].add(group["id"])
    position = max(range(len(cluster.nodes)), key=lambda i: len(led[cluster.nodes[i].id]))
    return position, led[cluster.nodes[position].id]


async def one_try(cluster: Cluster, how: signal.Signals, writers: int) -> tuple[float, int]:
    """(gap in seconds, failed requests)."""
    victim, groups = victim_and_groups(cluster)
    keys = itertools.cycle(keys_of(groups))
    urls = [url for i, url in enumerate(cluster.urls) if i != victim]
    acknowledged: list[float] = []

    def put() -> bytes:
        return request("PUT", f"/v1/keys/{next(keys)}?timeout=250ms", b"v" * 100)

    async def strike() -> float:
        await asyncio.sleep(SETTLE_S)
        cluster.nodes[victim].process.send_signal(how)
        return time.perf_counter()

    def note(status: int) -> None:
        if status < 300:
            acknowledged.append(time.perf_counter())

    load = asyncio.create_task(run(urls, writers, SETTLE_S + AFTER_S, put, note))
    struck = await strike()
    report = await load
    around = [t for t in acknowledged if t > struck - 0.2]
    around.append(time.perf_counter() if struck > around[-1] else around[-1])
    return max(b - a for a, b in itertools.pairwise(around)), report.failures


def revive(cluster: Cluster, how: signal.Signals) -> None:
    """Back to three nodes that are ready, each leading what it should."""
    for i, node in enumerate(cluster.nodes):
        if how is signal.SIGSTOP:
            node.process.send_signal(signal.SIGCONT)
        else:
            if how is signal.SIGTERM and node.ended is None:
                continue
            if node.ended is not None:
                cluster.restart(i)
    cluster.wait_until_ready()
    time.sleep(3.0)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--memory", action="store_true", help="keep nothing on disk")
    args = parser.parse_args()
    print(f"{'fault':<10}{'tries':>6}{'min ms':>9}{'median':>9}{'max ms':>9}{'failed':>8}")
    for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP):
        gaps, failed = [], 0
        with Cluster(Plan(nodes=3, groups=GROUPS, port=0, memory=args.memory)) as cluster:
            cluster.wait_until_ready()
            for number in range(args.tries):
                gap, failures = uvloop.run(one_try(cluster, how, args.writers))
                gaps.append(gap * 1000)
                failed += failures
                print(f"  {how.name} {number + 1}: {gap * 1000:.0f} ms", file=sys.stderr)
                if how is signal.SIGTERM:
                    for node in cluster.nodes:
                        if node.ended is None and not _answers(node.url):
                            node.process.wait(20)
                revive(cluster, how)
        print(
            f"{how.name:<10}{len(gaps):>6}{min(gaps):>9.0f}{statistics.median(gaps):>9.0f}"
            f"{max(gaps):>9.0f}{failed:>8}"
        )
    return 0


def _answers(url: str) -> bool:
    connection = HTTPConnection(url.removeprefix("http://"), timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
