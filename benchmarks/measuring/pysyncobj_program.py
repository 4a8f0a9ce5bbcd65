"""PySyncObj as it comes, for ``peers/plain_pysyncobj.py``: a node of a replicated dict, or clients.

Clients are threads of one process that is connected to the three as an observer (a ``SyncObj``
without an address of its own), and call the replicated methods: with ``sync=True`` one at a time,
with callbacks as many at a time as a pipeline has. Its own reads are local and may be stale; to be
linearizable, a read goes through the log like a write.

    python pysyncobj_program.py node ADDRESS OTHERS [DIRECTORY]
    python pysyncobj_program.py clients NODES    # loads as JSON lines in, what they saw out
"""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj.batteries import ReplDict

from raftcache.bench.report import Report
from raftcache.bench.workload import SEED, Workload, key, numbers

CALL_TIMEOUT_S: Final = 30.0
_FILL_AT_A_TIME: Final = 500


class Store(ReplDict):  # type: ignore[misc]
    """PySyncObj's dict, with reads that go through the log."""

    @replicated  # type: ignore[untyped-decorator]
    def read(self, key: str) -> bytes | None:
        """The value at this place of the log."""
        value: bytes | None = self.get(key)
        return value


def options(directory: str | None) -> Any:
    """Entries are sent when they come, not every 100 ms; the log is not compacted, which would stop
    every node for some 0.3 s each 5,000 entries (at 10,000 keys)."""
    kept: dict[str, str] = {}
    if directory is not None:
        kept = {"journalFile": f"{directory}/journal", "fullDumpFile": f"{directory}/dump"}
    never = {"logCompactionMinEntries": 10**9, "logCompactionMinTime": 10**9}
    return SyncObjConf(appendEntriesUseBatch=False, **never, **kept)


def node(address: str, others: str, directory: str | None = None) -> None:
    """Run until somebody ends it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    system = SyncObj(address, others.split(","), options(directory), consumers=[Store()])
    while not system.isReady():
        time.sleep(0.02)
    print("ready", flush=True)
    threading.Event().wait()


class Clients:
    """Threads that call, one call or one pipeline of calls at a time each."""

    def __init__(self, nodes: Sequence[str]) -> None:
        self.store = Store()
        self.system = SyncObj(None, nodes, options(None), consumers=[self.store])
        deadline = time.monotonic() + CALL_TIMEOUT_S
        while not self.system.isReady() or self.system._getLeader() is None:
            if time.monotonic() > deadline:
                raise TimeoutError("the clients find no leader")
            time.sleep(0.02)
        self._lock = threading.Lock()
        self._counting = False
        self._stopped = False

    def fill(self, workload: Workload) -> str:
        """Store every key. What went wrong; empty when nothing did."""
        for at in range(0, workload.keys, _FILL_AT_A_TIME):
            many = range(at, min(at + _FILL_AT_A_TIME, workload.keys))
            if problem := self._call_all("set", [name_of(n) for n in many], workload.value()):
                return problem
        return ""

    def run(self, workload: Workload, clients: int, seconds: float) -> Report:
        """The load, as ``raftcache.bench`` has it."""
        draw = random.Random(SEED)
        drawn = numbers(draw, workload.keys, workload.zipf)
        report = Report()
        self._stopped = False

        def client() -> None:
            while not self._stopped:
                with self._lock:
                    keys = [name_of(number) for number in islice(drawn, workload.pipeline)]
                started = time.perf_counter()
                error = self.call(workload.name, keys, workload.value())
                if not self._counting:
                    continue
                took = time.perf_counter() - started
                with self._lock:
                    report.latencies.add(took, len(keys))
                    if error:
                        report.errors += 1
                        report.first_error = report.first_error or error

        threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
        for thread in threads:
            thread.start()
        cpu, started = time.process_time(), time.perf_counter()
        self._counting = True
        time.sleep(seconds)
        self._counting, self._stopped = False, True
        report.seconds = time.perf_counter() - started
        report.client_cpu_s = time.process_time() - cpu
        for thread in threads:
            thread.join(CALL_TIMEOUT_S)
        return report

    def call(self, op: str, keys: Sequence[str], value: bytes) -> str:
        """Call for every key, and wait for all. What went wrong; empty when nothing did."""
        if len(keys) == 1:
            try:
                if op == "set":
                    self.store.set(keys[0], value, sync=True, timeout=CALL_TIMEOUT_S)
                elif self.store.read(keys[0], sync=True, timeout=CALL_TIMEOUT_S) is None:
                    return "a key is not there"
            except Exception as error:
                return f"{type(error).__name__}: {error}"
            return ""
        return self._call_all(op, keys, value)

    def _call_all(self, op: str, keys: Sequence[str], value: bytes) -> str:
        done = threading.Event()
        left, problems = len(keys), []

        def answered(result: object, error: object) -> None:
            # Callbacks come one at a time, from PySyncObj's thread.
            nonlocal left
            if error:
                problems.append(f"PySyncObj's FAIL_REASON {error}")
            elif op == "get" and result is None:
                problems.append("a key is not there")
            left -= 1
            if left == 0:
                done.set()

        for each in keys:
            if op == "set":
                self.store.set(each, value, callback=answered)
            else:
                self.store.read(each, callback=answered)
        if not done.wait(CALL_TIMEOUT_S):
            return "no answer"
        return problems[0] if problems else ""


def name_of(number: float) -> str:
    """A key, as the other peers have it."""
    return key("set", f"{int(number):012d}")


def clients(nodes: str) -> None:
    """Run the loads that standard input asks for, a line each, and answer each with a line."""
    all_of_them = Clients(nodes.split(","))
    print("{}", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        workload = Workload(**asked["workload"])
        if asked["fill"]:
            found: dict[str, Any] = {"first_error": all_of_them.fill(workload)}
        else:
            report = all_of_them.run(workload, asked["clients"], asked["seconds"])
            found = report.summary()
        print(json.dumps(found), flush=True)
    all_of_them.system.destroy()


if __name__ == "__main__":
    if sys.argv[1] == "node":
        node(*sys.argv[2:])
    else:
        clients(*sys.argv[2:])
