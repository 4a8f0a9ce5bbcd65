"""Whole clusters: they replay, they survive a few seeds, and broken ones are convicted.

Thousands of seeds are for ``python -m jepsen_like sim``; here it is shown that the simulator tells
right from wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from jepsen_like.__main__ import main
from jepsen_like.sim.disk import SimDisk
from jepsen_like.sim.faults import FAMILIES, expand, schedule
from jepsen_like.sim.injector import ACTIONS
from jepsen_like.sim.run import Options, Outcome, run
from jepsen_like.sim.scheduler import Scheduler
from raftcache.ops import Read, Write
from raftcache.raft.follower_reads import FollowerReads
from raftcache.raft.group import RaftGroup
from raftcache.scattering import Part


def trace(seed: int, options: Options) -> str:
    lines: list[str] = []
    run(seed, options, trace=lines.append)
    return "\n".join(lines)


@pytest.mark.parametrize("durable", [True, False])
def test_the_same_seed_gives_the_same_trace_to_the_byte(durable: bool) -> None:
    options = Options(seconds=2.0, durable=durable, clients=3)
    first = trace(3, options)
    assert "leads group" in first and "client" in first and "fault" in first
    assert first == trace(3, options)


def test_a_quiet_cluster_loses_nothing_and_answers_everything() -> None:
    outcome = run(1, Options(seconds=3.0, families=(), think_s=0.04))
    assert outcome.violations == []
    assert outcome.succeeded == outcome.operations > 300
    assert outcome.elections == 2


def test_schedules_name_every_family_and_fit_the_time() -> None:
    seen = set()
    for seed in range(50):
        faults = schedule(Scheduler(seed).generator("faults"), 20.0, FAMILIES)
        assert all(f.start >= 1.0 and f.start + f.seconds <= 20.0 for f in faults)
        seen.update(fault.family for fault in faults)
    assert seen == set(FAMILIES)
    assert set(ACTIONS) == set(FAMILIES)


# -- controls: what is broken must be convicted ---------------------------------------------------


def convicted(kind: str, seeds: range, options: Options) -> Outcome | None:
    for seed in seeds:
        outcome = run(seed, options)
        if any(violation.kind == kind for violation in outcome.violations):
            return outcome
    return None


def test_reads_without_asking_a_majority_are_convicted() -> None:
    """A cut-off leader that answers from its own state serves stale reads."""
    families = expand(["partition-leader", "partition-one-way"])
    options = Options(seconds=8.0, families=families, without=("read-index",))
    outcome = convicted("not linearizable", range(10), options)
    assert outcome is not None
    assert options.command(outcome.seed).endswith("--durable --clients 6 --without read-index")


def test_a_clock_that_leaps_is_convicted() -> None:
    """A follower that applies the log before its leader, and keeps its lead, dates entries too
    late when it leads."""
    seeds, options = [5400205], Options(without=("clock-lead",))
    assert convicted("machine time leapt", seeds, options) is not None
    assert convicted("machine time leapt", seeds, Options()) is None


def test_a_guard_is_off_only_in_the_run_that_asks_for_it() -> None:
    assert run(0, Options(seconds=1.0, without=("pre-vote", "read-index"))).operations
    assert run(1, Options(seconds=4.0, families=expand(["partition"]))).violations == []


def test_the_command_line_knows_the_guards(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "--list-guards"]) == 0
    assert "one-vote-per-voter   S5 G3" in capsys.readouterr().out
    assert main(["sim", "--seed", "1", "--without", "pre-vote,nonsense"]) == 2
    assert "unknown guards ['nonsense']; known: " in capsys.readouterr().err
    command = Options(seconds=1.0, families=(), without=("pre-vote", "stickiness")).command(1)
    assert main(command.split()[3:]) == 0


def test_a_disk_that_only_says_that_it_has_synced_is_convicted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Any sector may be lost with the power, also one before others that are not: corruption."""
    monkeypatch.setattr(SimDisk, "sync", lambda self, file: None)
    options = Options(seconds=8.0, families=expand(["crash"]))
    assert convicted("a node cannot start", range(10), options) is not None


def test_a_replica_that_takes_its_state_for_fresh_is_convicted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stale read with a bound must ask the leader, unless it has lately."""

    def confirm(self: FollowerReads, _: float, confirmed: Callable[[bool], None]) -> None:
        confirmed(True)

    monkeypatch.setattr(FollowerReads, "confirm", confirm)
    options = Options(seconds=8.0, families=expand(["partition", "pause"]))
    assert convicted("a stale read is too old", range(10), options) is not None


def test_a_follower_that_reads_without_asking_is_convicted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may lag, and a later leader may be at work."""
    monkeypatch.setattr(FollowerReads, "confirm_now", lambda self, confirmed: confirmed(True))
    options = Options(seconds=8.0, families=expand(["partition", "pause"]))
    assert convicted("not linearizable", range(10), options) is not None


def test_an_atomic_batch_that_is_applied_in_part_is_convicted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When a part fails the others must be undone."""
    whole = Part.as_one

    def first(part: Part) -> Sequence[Read | Write]:
        one = whole(part)
        return one if one is part.ops else part.ops[:1]

    monkeypatch.setattr(Part, "as_one", first)
    options = Options(seconds=3.0, families=())
    assert convicted("a wrong answer", range(3), options) is not None


def test_an_exception_in_a_node_is_convicted(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_timer(self: RaftGroup) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(RaftGroup, "on_timer", on_timer)
    outcome = convicted("a callback raised", range(1), Options(seconds=1.0, families=()))
    assert outcome is not None
    assert "ZeroDivisionError" in outcome.violations[0].line
