"""Full disks: what the stage does to them, what is counted, and a real cluster that refuses writes,
goes on reading, and comes back."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from jepsen_like.checkers.history import Operation, load
from jepsen_like.run import report
from jepsen_like.run.nemeses import NEMESES
from jepsen_like.run.stage import Stage
from jepsen_like.run.system import FaultKind, StorageFull
from jepsen_like.sim.faults import Fault
from tests.run.fake import Fake
from tests.run.schedules import write_schedule
from tests.run.test_runner import played

WRITES = frozenset({"set", "cas", "incr", "del"})


class FullFake(Fake):
    """Refuses writes while a majority of its disks are full."""

    faults = Fake.faults | {FaultKind.FULL_DISK}
    refusals = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.full: set[str] = set()

    async def fill_disk(self, node: str, full: bool) -> None:
        self.log.append(f"fill {node} {full}")
        (self.full.add if full else self.full.discard)(node)

    def put(self, key: str, value: str | None, ttl_ms: int = 0) -> None:
        if len(self.full) >= 2:
            raise StorageFull("full")
        super().put(key, value, ttl_ms)


@pytest.mark.parametrize(
    ("family", "nodes", "minority"), [("disk-full-one", 1, False), ("disk-full-majority", 2, True)]
)
async def test_disks_are_filled_again_and_given_back(
    family: str, nodes: int, minority: bool
) -> None:
    fake = FullFake()
    clock = (look / 10 for look in count())
    told: list[str] = []
    stage = Stage(fake, lambda: next(clock), told.append, lambda *_: None, durable=True)
    assert not stage.some_disks_full
    await NEMESES[family].action(stage, random.Random(1), 1.0)
    assert fake.full == set() and not stage.some_disks_full
    (band,) = stage.bands
    assert told == [f"{family}: {band.what}", f"{family} ends"]
    filled = band.what.split()
    assert band.family == family and len(filled) == nodes
    for node in filled:
        own = [line for line in fake.log if line.startswith(f"fill {node} ")]
        assert own.count(f"fill {node} True") > 1
        assert own[-1] == f"fill {node} False" and own.count(own[-1]) == 1
    assert bool(stage.minority_s) is minority


def test_operations_that_were_refused_for_space_are_counted(tmp_path: Path) -> None:
    fake = FullFake()
    faults = (Fault(0.2, 10.0, "disk-full-majority", 1),)
    outcome, run = played(fake, tmp_path, seconds=5.0, faults=faults)
    facts = report.facts("fake", fake, run.plan, outcome, 0.0)
    assert facts["verdict"] == "valid"
    counted = facts["storage_full"]
    # Those whose time was over before there was space again.
    refused = [x for x in load(tmp_path / "history.jsonl") if x.ok is False and x.op in WRITES]
    by_operation = counted["by_operation"]
    assert sum(by_operation.get(op, 0) for op in (*WRITES, "ttl")) == len(refused) > 0
    assert counted["operations"] == sum(by_operation.values())
    assert counted["attempts"] > counted["operations"]
    report.write(tmp_path, facts, outcome)
    assert (
        f"{counted['operations']:,} operations failed for that"
        in (tmp_path / "report.html").read_text()
    )
    assert f"disks were full: {counted['operations']} operations" in report.summary(facts)


def test_a_run_without_full_disks_speaks_of_none(tmp_path: Path) -> None:
    fake = Fake()
    outcome, run = played(fake, tmp_path, seconds=0.3)
    facts = report.facts("fake", fake, run.plan, outcome, 0.0)
    assert facts["storage_full"] == {"attempts": 0, "operations": 0, "by_operation": {}}
    assert "disks were full" not in report.summary(facts)


def test_a_cluster_whose_majority_has_no_space_refuses_writes_and_reads_on_and_heals(
    tmp_path: Path,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    out = tmp_path / "report"
    command = [sys.executable, "-m", "jepsen_like", "run", "--system", "local", "--out", str(out)]
    faults = write_schedule(tmp_path / "schedule.jsonl", [("disk-full-majority", 1.0, 12.0)])
    # One group, for each allocates some of the disk ahead. No operation is repeated for long.
    command += ["--seconds", "13", "--rate", "200", "--groups", "1", *faults]
    command += ["--workloads", "register,counter", "--timeout", "0.5", "--attempt-timeout", "0.5"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=150)
    for missing in ("no mount namespace", "permission denied"):
        if missing in ended.stderr:
            pytest.skip(ended.stderr.splitlines()[-1])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    verdict: dict[str, Any] = json.loads((out / "verdict.json").read_text())
    assert verdict["verdict"] == "valid"
    assert verdict["storage_full"]["operations"] > 0
    history = load(out / "history.jsonl")
    refused = [x for x in history if x.ok is False and x.op in WRITES]
    first, last = min(x.start for x in refused), max(x.start for x in refused)
    assert any(x.op == "get" and first < x.start and (x.end or last) < last for x in done(history))
    assert any(x.op in WRITES and x.start > last for x in done(history))


def done(history: list[Operation]) -> list[Operation]:
    """What succeeded."""
    return [x for x in history if x.ok]
