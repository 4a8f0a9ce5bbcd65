"""A run from end to end, on a system in this process: what is right is acquitted, each defect
convicted."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
import uvloop

from jepsen_like.__main__ import main
from jepsen_like.checkers.history import load
from jepsen_like.checkers.linearizability import Verdict
from jepsen_like.run import judge, nemeses, report, workloads
from jepsen_like.run.command import UsageError, families_of, workloads_of
from jepsen_like.run.runner import Outcome, Plan, Run, faults_of
from jepsen_like.sim.faults import Fault
from tests.run.fake import DEFECTS, Fake


def played(
    fake: Fake,
    directory: Path,
    seconds: float = 2.0,
    faults: tuple[Fault, ...] = (),
    operations: int = 0,
) -> tuple[Outcome, Run]:
    """Quick: the keys' last reads come at once when the load ends. It goes on for as long as there
    were not so many ``operations``."""
    plan = Plan(
        seconds=seconds if not operations else 100.0,
        seed=1,
        durable=True,
        workloads=workloads.possible(fake),
        faults=faults,
        rate=0.0,
        concurrency=16,
        peace_s=0.0,
    )
    run = Run(fake, plan, directory)

    async def play() -> Outcome:
        playing = asyncio.create_task(run.play())
        while operations and not playing.done():
            if sum(run.meter.by_op.values()) >= operations and run.clock() >= seconds:
                run.stop()
            await asyncio.sleep(0.05)
        return await playing

    return uvloop.run(play()), run


def test_a_correct_system_is_acquitted(tmp_path: Path) -> None:
    fake = Fake()
    faults = (
        Fault(0.2, 0.5, "kill-one", 1),
        Fault(0.3, 0.3, "pause-leader", 2),
        Fault(1.0, 0.5, "pressure", 3),
    )
    outcome, run = played(fake, tmp_path, seconds=4.0, faults=faults)
    assert report.verdict(outcome) is Verdict.VALID, outcome.violations
    assert fake.log[0] == "start" and fake.log[-1] == "stop"
    assert sum(line.startswith("kill") for line in fake.log) == 1
    assert sum(line.startswith("launch") for line in fake.log) == 1
    assert [band.family for band in outcome.bands] == ["kill-one", "pause-leader", "pressure"]
    facts = report.facts("fake", fake, run.plan, outcome, 0.0)
    assert facts["verdict"] == "valid"
    assert set(facts["faults"]) == {"kill-one", "pause-leader", "pressure"}
    alone = {"get", "set", "cas", "incr", "del", "txn", "ttl", "lease", "stale"}
    batched = {f"batched {op}" for op in ("get", "set", "incr", "del")}
    assert set(facts["by_operation"]) == alone | batched
    # Everything that was asked is in the file, which any checker can judge again.
    history = load(tmp_path / "history.jsonl")
    assert len(history) == outcome.judge.operations == sum(facts["by_operation"].values())
    assert any(operation.ok is None for operation in history)


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_convicted(defect: str, tmp_path: Path) -> None:
    outcome, _ = played(Fake(defect), tmp_path, operations=4000)
    assert report.verdict(outcome) is Verdict.INVALID
    kinds = {violation.kind for violation in outcome.violations}
    wanted = "a stale read is too old" if defect == "too stale" else "not linearizable"
    assert wanted in kinds, outcome.violations
    assert kinds <= {"not linearizable", "a stale read is too old"}


def test_a_node_that_ends_by_itself_is_a_violation(tmp_path: Path) -> None:
    fake = Fake()
    fake.down.add("n3")
    outcome, _ = played(fake, tmp_path, seconds=0.5)
    assert "a node ended" in {violation.kind for violation in outcome.violations}


def test_what_could_not_be_judged_is_not_valid(tmp_path: Path) -> None:
    outcome, _ = played(Fake(), tmp_path, seconds=0.3)
    outcome.undecided.append("r1")
    assert report.verdict(outcome) is Verdict.UNDECIDED


def test_the_judge_ends_in_time_and_leaves_the_rest_undecided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its processes begin with this, those that are there during the run, too: all are too late.
    pool = judge._pool
    monkeypatch.setattr(judge, "_pool", lambda processes, *_: pool(processes, time.sleep, 60.0))
    fake = Fake()
    plan = Plan(0.5, 1, True, ("register",), (), rate=0.0, concurrency=8, check_seconds=0.0)
    outcome = uvloop.run(Run(fake, plan, tmp_path).play())
    assert report.verdict(outcome) is Verdict.UNDECIDED
    assert outcome.undecided


def test_a_seed_draws_the_same_schedule_and_another_one_another() -> None:
    families = nemeses.FAMILIES
    assert faults_of(7, 300.0, families) == faults_of(7, 300.0, families)
    assert faults_of(7, 300.0, families) != faults_of(8, 300.0, families)
    assert faults_of(7, 300.0, ()) == ()


def test_every_family_comes_before_any_comes_a_third_time() -> None:
    faults = faults_of(3, 600.0, nemeses.FAMILIES)
    seen = [fault.family for fault in faults]
    counts = {family: seen.count(family) for family in nemeses.FAMILIES}
    assert min(counts.values()) >= 1
    assert max(counts.values()) - min(counts.values()) <= 2


def test_faults_are_those_that_the_system_can_be_given() -> None:
    fake = Fake()
    able = families_of("all", fake, durable=True)
    assert "kill-all" in able and "partition-one" not in able and "wipe" not in able
    assert "kill-all" not in families_of("all", fake, durable=False)
    assert families_of("kill,pause-one", fake, durable=True) == (
        "kill-one",
        "kill-leader",
        "kill-minority",
        "kill-all",
        "pause-one",
    )
    assert families_of("none", fake, durable=True) == ()
    with pytest.raises(UsageError, match="unknown faults earthquake"):
        families_of("earthquake", fake, durable=True)
    with pytest.raises(UsageError, match=r"cannot be given wipe; it can: .*kill-one"):
        families_of("wipe", fake, durable=True)


@pytest.mark.parametrize("groups", ["0", "-1", "1025"])
def test_groups_have_bounds(groups: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--groups", groups]) == 2
    assert "--groups: at least 1, at most 1024" in capsys.readouterr().err


def test_workloads_are_those_that_the_system_can_do() -> None:
    fake = Fake()
    assert workloads_of("all", fake) == workloads.NAMES
    assert workloads_of("counter,register", fake) == ("register", "counter")
    fake.operations = frozenset({"get", "set"})
    fake.faults = frozenset()
    assert workloads_of("all", fake) == ("register", "set")
    with pytest.raises(UsageError, match="no workload 'counter'"):
        workloads_of("counter", fake)
    with pytest.raises(UsageError, match="nothing to read"):
        workloads_of("stale", Fake())


def test_facts_are_json(tmp_path: Path) -> None:
    fake = Fake()
    outcome, run = played(fake, tmp_path, seconds=0.3)
    report.write(tmp_path, report.facts("fake", fake, run.plan, outcome, 0.0), outcome)
    assert json.loads((tmp_path / "verdict.json").read_text())["verdict"] == "valid"
