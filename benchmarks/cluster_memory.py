"""Resident size of real nodes against ``--max-memory``, and per entry.

    python benchmarks/cluster_memory.py [--entries 1000000] [--max-memory 512mb]

Fills a three-node cluster through ``/v1/batch`` with 16-byte keys and 100-byte values, more than
fit, and compares each process's growth over what it took when empty with the limit. Linux only."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from pathlib import Path

import uvloop
from load import request, run

from raftcache.demo import Cluster, Plan, cluster_status
from raftcache.units import parse_size

PER_BATCH = 1000


def resident(pid: int) -> int:
    """Bytes of a process's resident size."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def fill(urls: list[str], entries: int) -> None:
    """Write keys 0 to ``entries`` - 1, once each."""
    starts = iter(range(0, entries, PER_BATCH))

    def batch() -> bytes:
        start = next(starts, None)
        if start is None:
            return request("GET", "/healthz")
        ops = [
            {"op": "set", "key": f"key-{i:012d}", "value": "v" * 100}
            for i in range(start, start + PER_BATCH)
        ]
        body = json.dumps({"operations": ops}).encode()
        return request("POST", "/v1/batch", body, "Content-Type: application/json\r\n")

    for _ in itertools.count():
        await run(urls, 3, 5.0, batch)
        if not starts.__length_hint__():
            return


def report(cluster: Cluster, empty: list[int], limit: int, when: str) -> None:
    """One line for each node."""
    for node, before in zip(cluster.nodes, empty, strict=True):
        status = cluster_status(node.url)
        assert status is not None
        entries = sum(group["entries"] for group in status["groups"])
        grown = resident(node.process.pid) - before
        print(
            f"{when:<12}{node.id:<6}{entries:>12,}{grown / 2**20:>10.1f} MiB"
            f"{grown / entries:>9.0f} B/entry{grown / limit:>8.1%} of max_memory"
        )


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--max-memory", default="512mb")
    args = parser.parse_args()
    settings = {"max_memory": args.max_memory}
    with Cluster(Plan(nodes=3, groups=4, port=0, memory=True, settings=settings)) as cluster:
        cluster.wait_until_ready()
        empty = [resident(pid) for pid in cluster.pids]
        print("empty:", ", ".join(f"{size / 2**20:.0f} MiB" for size in empty))
        for part in (0.5, 1.0):
            uvloop.run(fill(cluster.urls, int(args.entries * part)))
            report(cluster, empty, parse_size(args.max_memory), f"{part:.0%} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
