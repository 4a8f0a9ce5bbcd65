"""The control is convicted, and only when something happens to it; what fails is made smaller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from jepsen_like.__main__ import main
from jepsen_like.sim import schedules
from jepsen_like.sim.cluster import Cluster, SimNode
from jepsen_like.sim.faults import FAMILIES, expand, schedule
from jepsen_like.sim.run import Options, drawn, run
from jepsen_like.sim.scheduler import Scheduler
from jepsen_like.sim.shrink import shrink
from jepsen_like.sim.systems import RAFTCACHE, STOCK
from raftcache.ops import Result, Set, Status

CRASHES = Options(seconds=8.0, system=STOCK, families=expand(["crash"]))


@pytest.mark.parametrize(("durable", "nodes"), [(True, 3), (False, 3), (True, 5)])
def test_pysyncobj_answers_everything_right_when_nothing_happens(durable: bool, nodes: int) -> None:
    options = Options(seconds=3.0, system=STOCK, families=(), durable=durable, nodes=nodes)
    outcome = run(1, options)
    assert outcome.violations == [] and not outcome.undecided
    assert outcome.succeeded == outcome.operations > 200


def test_pysyncobj_with_a_journal_is_convicted_of_losing_writes() -> None:
    kinds: set[str] = set()
    for seed in range(40):
        kinds |= {violation.kind for violation in run(seed, CRASHES).violations}
        if {"not linearizable", "a committed entry changed"} <= kinds:
            return
    pytest.fail(f"40 seeds show only {kinds}")


def value_after_amnesia(node_type: type[SimNode]) -> Result:
    """The leader and ``voter`` acknowledge a write that ``other`` does not see; ``voter`` restarts
    with nothing; then only ``voter`` and ``other`` are left, and asked for the value
    (PYSYNCOBJ.md, S3)."""
    scheduler = Scheduler("amnesia")
    cluster = Cluster(scheduler, 3, 1, durable_mode=False, node_type=node_type)
    cluster.start_all()
    scheduler.run(6.0)
    leader = cluster.leader(0)
    assert leader is not None
    voter, other = [name for name in cluster.names if name != leader]

    def ask(name: str, call: Callable[[SimNode], asyncio.Future[Result]]) -> Result:
        answers: list[Result] = []
        node = cluster.nodes[name]
        node.process.call_soon(
            lambda: call(node).add_done_callback(lambda done: answers.append(done.result()))
        )
        assert scheduler.run_until(lambda: bool(answers), scheduler.now + 5.0)
        return answers[0]

    cluster.network.partition([[leader, voter], [other]])
    written = ask(leader, lambda node: node.write(Set(b"k", b"v"), node.now() + 0.35))
    assert written.status is Status.CREATED
    cluster.crash(voter, power=True)
    cluster.network.unblock((voter, other), (other, voter))
    cluster.network.partition([[leader], [voter, other]])
    cluster.start(voter)
    scheduler.run(scheduler.now + 5.0)
    return ask(other, lambda node: node.read(b"k", node.now() + 2.0))


def test_pysyncobj_in_memory_forgets_what_it_acknowledged_and_raftcache_does_not() -> None:
    assert value_after_amnesia(STOCK.node_type).status is Status.NOT_FOUND
    assert value_after_amnesia(RAFTCACHE.node_type).status is Status.UNAVAILABLE


def test_a_stock_run_replays_to_the_byte() -> None:
    traces: list[list[str]] = [[], []]
    for lines in traces:
        run(5, Options(seconds=3.0, system=STOCK), trace=lines.append)
    assert traces[0] == traces[1]
    assert any("append_entries" in line for line in traces[0])


def test_a_schedule_survives_its_file(tmp_path: Path) -> None:
    faults = schedule(Scheduler(4).generator("faults"), 30.0, FAMILIES)
    schedules.save(faults, tmp_path / "faults.jsonl")
    assert schedules.load(tmp_path / "faults.jsonl") == faults != []


def test_a_file_that_is_no_schedule_is_refused_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "faults.jsonl"
    path.write_text('\n{"start": 1}\n')
    with pytest.raises(schedules.ScheduleError, match="line 2"):
        schedules.load(path)
    assert main(["sim", "--seed", "1", "--schedule", str(path)]) == 2
    assert "line 2" in capsys.readouterr().err


def failing(options: Options) -> int:
    """The first seed that fails."""
    return next(seed for seed in range(50) if run(seed, options).violations)


def test_a_shrunk_run_is_smaller_and_fails_in_the_same_way() -> None:
    options = Options(seconds=6.0, system=STOCK, families=expand(["crash"]))
    seed = failing(options)
    heard: list[int] = []
    best = shrink(seed, options, most_runs=25, seen=lambda _best, runs: heard.append(runs))
    assert best is not None
    assert heard == list(range(1, len(heard) + 1)) and len(heard) <= 25
    assert 0 < len(best.faults) < len(drawn(seed, options))
    assert best.options.seconds <= 6.0 and best.options.clients <= options.clients
    again = run(seed, best.options, faults=list(best.faults))
    assert best.violation in again.violations


def test_what_does_not_fail_is_not_shrunk() -> None:
    assert shrink(1, Options(seconds=1.0, system=STOCK, families=())) is None


def test_shrinking_prints_a_command_that_replays_the_violation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small.jsonl"
    given = ["--stock", "--durable", "--faults", "crash", "--seconds", "8", "--shrink-runs", "6"]
    seed = str(failing(CRASHES))
    assert main(["sim", "--shrink", "--seed", seed, *given, "--out", str(out)]) == 1
    lines = capsys.readouterr().out.splitlines()
    command, kind = lines[-1], lines[0].split("give: ")[1].split(" at ")[0]
    assert "--stock" in command and command.startswith(f"python -m jepsen_like sim --seed {seed} ")
    assert len(lines) == 2 + len(schedules.load(out))
    assert main(command.split()[3:]) == 1
    assert kind in capsys.readouterr().out
