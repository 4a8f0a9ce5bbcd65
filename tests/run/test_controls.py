"""Who is known to be wrong is convicted, who is known to be right is not: real processes of others.

Each run takes ten to thirty seconds. What convicts a system must be what it answered, not that it
was slow to come back.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jepsen_like.run.controls import etcd, redis_replicated
from jepsen_like.run.namespaces import PROGRAMS, why_not
from tests.programs import program

SCHEDULES = Path(redis_replicated.__file__).parent / "schedules"
ATTEMPTS = 4
"""Of a conviction that hangs on what is under way when a fault comes."""


@pytest.fixture(scope="module")
def etcd_server() -> None:
    for name, package in etcd.PROGRAMS.items():
        program(name, package)


@pytest.fixture(scope="module")
def redis() -> None:
    for name, package in redis_replicated.PROGRAMS.items():
        program(name, package)


@pytest.fixture(scope="module")
def namespaces() -> None:
    for name, package in PROGRAMS.items():
        program(name, package)
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)


@dataclass(frozen=True)
class Ended:
    """A run that is over."""

    status: int
    verdict: dict[str, Any]
    said: str

    @property
    def kinds(self) -> set[str]:
        """Of violations."""
        return {violation["kind"] for violation in self.verdict["violations"]}


def run(out: Path, system: str, *more: str, seconds: float, seed: int = 1) -> Ended:
    """``python -m jepsen_like run``."""
    command = [sys.executable, "-m", "jepsen_like", "run", "--system", system, "--out", str(out)]
    command += ["--seconds", str(seconds), "--seed", str(seed), *more]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240)
    said = ended.stdout + ended.stderr
    path = out / "verdict.json"
    assert path.exists(), said
    return Ended(ended.returncode, json.loads(path.read_text()), said)


def schedule(name: str) -> list[str]:
    return ["--schedule", str(SCHEDULES / f"{name}.jsonl")]


def assert_valid(ended: Ended, operations: int) -> None:
    assert ended.status == 0, ended.said
    assert ended.verdict["verdict"] == "valid" and ended.verdict["operations"] > operations


def assert_convicted(ended: Ended) -> None:
    """Of answers that no order of the operations explains, and of nothing else."""
    assert ended.status == 1, ended.said
    assert ended.kinds == {"not linearizable"}, ended.said


def convicted_in_time(tmp_path: Path, system: str, *more: str, seconds: float) -> Ended:
    """The first conviction in ``ATTEMPTS`` runs."""
    for seed in range(ATTEMPTS):
        ended = run(tmp_path / str(seed), system, *more, seconds=seconds, seed=seed)
        if ended.status == 1:
            return ended
        assert ended.status == 0, ended.said
    pytest.fail(f"{ATTEMPTS} runs show nothing")


def test_etcd_is_acquitted(etcd_server: None, tmp_path: Path) -> None:
    ended = run(tmp_path / "out", "etcd", "--rate", "400", seconds=14.0, seed=3)
    assert_valid(ended, operations=500)
    assert len(ended.verdict["faults"]) >= 2
    assert set(ended.verdict["workloads"]) == {"register", "counter", "set", "txn"}


def test_etcd_is_acquitted_where_redis_is_convicted(etcd_server: None, tmp_path: Path) -> None:
    ended = run(tmp_path / "out", "etcd", *schedule("isolated-leader"), seconds=8.0)
    assert_valid(ended, operations=500)
    assert ended.verdict["faults"]["partition-leader"]["seconds"] > 4.0


def test_redis_with_sentinel_is_convicted_of_losing_writes(redis: None, tmp_path: Path) -> None:
    faults = schedule("isolated-leader")
    ended = convicted_in_time(tmp_path, "redis-replicated", *faults, seconds=8.0)
    assert_convicted(ended)


def test_redis_is_acquitted_when_nothing_happens(redis: None, tmp_path: Path) -> None:
    ended = run(tmp_path / "out", "redis-replicated", "--faults", "none", seconds=3.0)
    assert_valid(ended, operations=500)


@pytest.mark.parametrize("mode", ["--durable", "--memory"])
def test_pysyncobj_is_acquitted_when_nothing_happens(tmp_path: Path, mode: str) -> None:
    more = [mode, "--faults", "none", "--concurrency", "40", "--rate", "0"]
    assert_valid(run(tmp_path / "out", "pysyncobj", *more, seconds=3.0), operations=100)


def test_a_read_of_pysyncobj_s_own_is_convicted_of_stale_data(tmp_path: Path) -> None:
    more = ["--setting", "reads=local", "--faults", "none", "--concurrency", "40"]
    assert_convicted(run(tmp_path / "out", "pysyncobj", *more, seconds=3.0))


def test_pysyncobj_in_memory_is_convicted_of_losing_writes(tmp_path: Path) -> None:
    more = ["--memory", "--concurrency", "40", "--rate", "0", *schedule("amnesia")]
    assert_convicted(convicted_in_time(tmp_path, "pysyncobj", *more, seconds=15.5))


def test_raftcache_in_memory_loses_nothing_where_pysyncobj_does(tmp_path: Path) -> None:
    more = ["--memory", "--rate", "400", *schedule("amnesia")]
    ended = run(tmp_path / "out", "local", *more, seconds=15.5)
    assert_valid(ended, operations=500)
    assert ended.verdict["faults"]["kill-one"]["times"] == 1


def test_pysyncobj_with_its_journal_is_convicted_of_losing_writes(tmp_path: Path) -> None:
    more = ["--concurrency", "60", "--rate", "0", "--setting", "compaction=20"]
    faults = schedule("refused-leader")
    assert_convicted(convicted_in_time(tmp_path, "pysyncobj", *more, *faults, seconds=16.0))


def test_in_network_namespaces_redis_is_convicted_too(
    redis: None, namespaces: None, tmp_path: Path
) -> None:
    more = ["--setting", "network=netns", *schedule("isolated-leader")]
    assert_convicted(convicted_in_time(tmp_path, "redis-replicated", *more, seconds=8.0))


def test_in_network_namespaces_raftcache_is_acquitted(namespaces: None, tmp_path: Path) -> None:
    lines = [
        {"start": start, "seconds": seconds, "family": family, "seed": place}
        for place, (family, start, seconds) in enumerate(
            [
                ("partition-one-way", 1.0, 1.0),
                ("reorder", 2.5, 1.5),
                ("duplicate", 2.6, 1.5),
                ("loss", 6.5, 1.0),
                ("orphan", 8.0, 1.0),
                ("delay", 8.5, 1.5),
                ("kill-one", 9.0, 1.0),
            ]
        )
    ]
    path = tmp_path / "faults.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    more = ["--rate", "300", "--schedule", str(path)]
    ended = run(tmp_path / "out", "netns", *more, seconds=16.0)
    assert_valid(ended, operations=500)
    assert set(ended.verdict["faults"]) >= {"partition-one-way", "reorder", "duplicate", "loss"}
