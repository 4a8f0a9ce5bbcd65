"""Clocks that jump and disks that are slow or full, on real processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jepsen_like.run.machine_faults import Machine
from jepsen_like.run.system import FaultKind

READER = "import time\nwhile True: input(); print(time.time(), time.monotonic(), flush=True)"
SYNCER = """
import os, sys, time
file = open(sys.argv[1], "wb")
while True:
    input()
    started = time.monotonic()
    file.write(b"x")
    file.flush()
    os.fdatasync(file.fileno())
    print(time.monotonic() - started, flush=True)
"""


class Asked:
    """A process that answers each line with numbers."""

    def __init__(self, code: str, *arguments: str, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )

    def ask(self) -> list[float]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return [float(word) for word in self.process.stdout.readline().split()]

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def machine(kind: FaultKind) -> Machine:
    made = Machine(["n1", "n2"], durable=True, small_disks=kind is FaultKind.FULL_DISK)
    if kind in made.missing:
        pytest.skip(made.missing[kind])
    return made


def test_a_clock_jumps_and_comes_back_and_no_other_one_does(tmp_path: Path) -> None:
    made = machine(FaultKind.CLOCK)
    made.prepare(tmp_path, {})
    nodes = [Asked(READER, environment=made.environment(node)) for node in ("n1", "n2")]
    try:
        for offset in (0.0, 86400.0, -3600.5, 0.0):
            made.shift("n1", offset)
            before = time.time(), time.monotonic()
            (wall, monotonic), (other, _) = (node.ask() for node in nodes)
            after = time.time(), time.monotonic()
            assert before[0] + offset - 0.01 <= wall <= after[0] + offset + 0.01
            assert before[0] - 0.01 <= other <= after[0] + 0.01
            assert before[1] <= monotonic <= after[1]
    finally:
        for node in nodes:
            node.end()


async def test_a_slow_disk_is_slow_until_it_is_not(tmp_path: Path) -> None:
    made = machine(FaultKind.SLOW_DISK)
    node = Asked(SYNCER, str(tmp_path / "file"), environment={})
    try:
        node.ask()
        await made.slow("n1", [node.process.pid], 0.8)
        async with asyncio.timeout(20):
            while node.ask()[0] < 0.8:  # strace attaches in its own time
                await asyncio.sleep(0.05)
        await made.slow("n1", [], 0.0)
        assert min(node.ask()[0] for _ in range(10)) < 0.8
    finally:
        await made.close()
        node.end()


SCRIPT = """
import asyncio, errno, os, sys
from pathlib import Path
from jepsen_like.run.machine_faults import Machine

made = Machine(["n1", "n2"], durable=True, small_disks=True)
place = Path(sys.argv[1])
data = {node: place / node for node in ("n1", "n2")}
made.prepare(place, data)

def write(node, size=1_000_000, name="file"):
    try:
        (data[node] / name).write_bytes(bytes(size))
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"

print(write("n1"), write("n2"))
(data["n1"] / "file").unlink()
(data["n1"] / "other").write_bytes(bytes(1_000_000))
made.fill("n1", True)
print(write("n1"), write("n2"))
(data["n1"] / "other").unlink()
made.fill("n1", True)
print(write("n1"), write("n2"))
(data["n1"] / "file").unlink()
made.fill("n1", True)
print(write("n1", 40_000, "last"))
made.fill("n1", True)
print(write("n1", 60_000))
made.fill("n1", False)
print(write("n1"), write("n2"))
asyncio.run(made.close())
"""


def test_a_full_disk_is_full_until_it_is_not_and_leaves_no_mount(tmp_path: Path) -> None:
    machine(FaultKind.FULL_DISK)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]  # it changes its mount namespace
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "no mount namespace" in ended.stderr or "permission denied" in ended.stderr:
        pytest.skip(ended.stderr.splitlines()[-1])
    assert ended.stdout.splitlines() == [
        *("ok ok", "ENOSPC ok", "ENOSPC ok"),
        *("ok", "ENOSPC"),  # what little was left is not given anew
        "ok ok",
    ], ended.stderr
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


def test_what_is_missing_is_said() -> None:
    made = Machine(["n1"], durable=False, small_disks=True)
    assert made.missing[FaultKind.FULL_DISK] == "nothing is on disk"
    assert FaultKind.SLOW_DISK not in made.faults
    made = Machine(["n1"], durable=True, small_disks=False)
    assert FaultKind.FULL_DISK in made.missing
