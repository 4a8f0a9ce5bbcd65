"""How long a node takes from its start until it is ready again, with a given amount of state.

    python benchmarks/restart.py [--megabytes 100] [--tries 5] [--values 100,10000]

For each size of value: one node with one group on disk is filled with so many megabytes of values
(keys of 16 bytes) through ``/v1/batch``, stopped, and started again and again: as it was left, so
that part of its state is in a snapshot and part in the log. Prints min, median and max of the time
from the start of the process to the first 200 of ``/readyz``, the median CPU time (which tells more
when the machine has other work), and what was on disk. The first line, without any state, is what
Python, imports and an election take."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import sys
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path

from measuring.machine import cpu_seconds

from raftcache.demo import Cluster, Plan, is_ready

PER_BATCH_BYTES = 500_000


def fill(url: str, megabytes: float, size: int) -> int:
    """Set keys until their values add up; how many."""
    connection = HTTPConnection(url.removeprefix("http://"), timeout=60)
    count, done = int(megabytes * 1e6 / size), 0
    while done < count:
        many = min(count - done, max(1, min(1000, PER_BATCH_BYTES // size)))
        ops = [
            {"op": "set", "key": f"key-{done + i:012d}", "value": f"{done + i:08d}" * (size // 8)}
            for i in range(many)
        ]
        body = json.dumps({"operations": ops}).encode()
        connection.request("POST", "/v1/batch", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        done += many
    connection.close()
    return count


def restart(cluster: Cluster) -> tuple[float, float]:
    """kill -9, start, wait until ready; seconds from the start, and of CPU time."""
    node = cluster.nodes[0]
    node.process.send_signal(signal.SIGKILL)
    node.process.wait()
    started = time.perf_counter()
    cluster.restart(0)
    while not is_ready(cluster.nodes[0].url):
        assert cluster.nodes[0].ended is None
        time.sleep(0.005)
    took = time.perf_counter() - started
    return took, cpu_seconds(cluster.pids[:1])


def on_disk(directory: Path) -> str:
    """``64.1 MB of snapshots, 48.0 MB of segments``"""
    kinds = ("snapshot", "journal")
    sizes = {
        kind: sum(path.stat().st_size for path in directory.glob(f"*/{kind}-*")) for kind in kinds
    }
    return f"{sizes['snapshot'] / 1e6:.0f} MB of snapshots, {sizes['journal'] / 1e6:.0f} of log"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--megabytes", type=float, default=100.0)
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--values", default="0,100,10000", help="sizes of values; 0: no state")
    parser.add_argument("--dir", type=Path, help="where, instead of the system's temporary place")
    args = parser.parse_args()
    print(
        f"{'values':<12}{'keys':>10}{'tries':>7}{'min s':>8}{'median':>8}{'max s':>8}{'CPU s':>8}"
        "  on disk"
    )
    for size in [int(each) for each in args.values.split(",")]:
        directory = Path(tempfile.mkdtemp(prefix="raftcache-restart-", dir=args.dir))
        settings = {"max_memory": "2GiB"}
        plan = Plan(nodes=1, groups=1, port=0, directory=directory, settings=settings)
        try:
            with Cluster(plan) as cluster:
                cluster.wait_until_ready()
                count = fill(cluster.urls[0], args.megabytes, size) if size else 0
                time.sleep(2.0)
                tries = [restart(cluster) for _ in range(args.tries)]
                took, cpu = [each[0] for each in tries], [each[1] for each in tries]
                print(
                    f"{f'{size} B':<12}{count:>10,}{len(took):>7}{min(took):>8.2f}"
                    f"{statistics.median(took):>8.2f}{max(took):>8.2f}"
                    f"{statistics.median(cpu):>8.2f}  {on_disk(directory / 'n1')}"
                )
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
