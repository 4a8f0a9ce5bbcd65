"""``python -m jepsen_like run``: real processes, real faults."""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import uvloop

from jepsen_like.checkers.linearizability import Verdict
from jepsen_like.run import nemeses, report, workloads
from jepsen_like.run.progress import Progress
from jepsen_like.run.runner import Outcome, Plan, Run, faults_of
from jepsen_like.run.system import Options, StartError, System
from jepsen_like.run.systems import SYSTEMS, make
from jepsen_like.sim import schedules
from jepsen_like.sim.faults import Fault, expand
from raftcache.partition import MAX_GROUPS

NODES: Final = (1, 3, 5)
COLLECT_EVERY_S: Final = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--system", default="local", choices=sorted(SYSTEMS))
    parser.add_argument("--nodes", type=int, default=3, choices=NODES)
    parser.add_argument(
        "--groups",
        type=int,
        help="Raft groups, where the system has them; one is never filled until it evicts",
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="with faults (default 60)")
    parser.add_argument(
        "--rate", type=float, default=1000.0, help="operations per second; 0: as many as go"
    )
    parser.add_argument("--concurrency", type=int, default=24, help="clients (default 24)")
    parser.add_argument("--seed", type=int, default=0, help="draws faults and operations")
    parser.add_argument(
        "--faults",
        default="all",
        help="all that the system can be given, none, or some of these, or the part of their names"
        f" before the dash: {', '.join(nemeses.FAMILIES)}",
    )
    parser.add_argument(
        "--workloads",
        default="all",
        help=f"all that the system can do, or some of: {', '.join(workloads.NAMES)}",
    )
    parser.add_argument("--schedule", type=Path, help="the faults of this file, not drawn ones")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--durable", dest="durable", action="store_true", default=True, help="(default)"
    )
    mode.add_argument("--memory", dest="durable", action="store_false", help="nothing on disk")
    parser.add_argument(
        "--timeout", type=float, default=3.0, help="seconds for an operation (default 3)"
    )
    parser.add_argument(
        "--attempt-timeout",
        type=float,
        default=1.0,
        help="seconds for each attempt at one node (default 1)",
    )
    parser.add_argument(
        "--setting", action="append", default=[], metavar="NAME=VALUE", help="of the system's own"
    )
    parser.add_argument(
        "--out", type=Path, help="directory of the report (default: run-SYSTEM-SEED)"
    )
    parser.add_argument(
        "--check-seconds",
        type=float,
        default=300.0,
        help="how long to wait for the judge when all is over (default 300)",
    )
    parser.set_defaults(run=command)


class UsageError(Exception):
    """The options make no sense; the message says why."""


def _split(text: str) -> list[str]:
    return [name for name in text.split(",") if name and name != "none"]


def named(text: str) -> tuple[str, ...]:
    """The nemeses that are named one by one, or by the part before the dash. ``UsageError``."""
    try:
        return expand(_split(text), nemeses.FAMILIES)
    except ValueError as error:
        known = ", ".join(nemeses.FAMILIES)
        raise UsageError(f"unknown faults {error}; known: {known}") from None


def families_of(text: str, system: System, durable: bool) -> tuple[str, ...]:
    """The nemeses that ``--faults`` means. ``UsageError``."""
    able = nemeses.possible(system, durable=durable)
    if text == "all":
        return able
    wanted = named(text)
    chosen = tuple(name for name in wanted if name in able)
    if wanted and not chosen:
        raise UsageError(f"{system.name} cannot be given {text}; it can: {', '.join(able)}")
    return chosen


def workloads_of(text: str, system: System) -> tuple[str, ...]:
    """The workloads that ``--workloads`` means. ``UsageError``."""
    able = workloads.possible(system)
    if text == "all":
        return able
    wanted = _split(text)
    for name in wanted:
        if name not in able:
            raise UsageError(f"{system.name} has no workload {name!r}; it has: {', '.join(able)}")
    if not workloads.kinds_of(wanted):
        raise UsageError(f"--workloads {text}: nothing to read")
    return tuple(name for name in workloads.NAMES if name in wanted)


def schedule_of(arguments: argparse.Namespace) -> tuple[Fault, ...] | None:
    """The faults of ``--schedule``, if it was given. ``UsageError``."""
    if arguments.schedule is None:
        return None
    try:
        return tuple(schedules.load(arguments.schedule))
    except (OSError, schedules.ScheduleError) as error:
        raise UsageError(f"--schedule: {error}") from None


def options_of(arguments: argparse.Namespace, scheduled: Sequence[Fault] | None) -> Options:
    """What the system is told. ``UsageError``."""
    settings = {}
    for text in arguments.setting:
        name, separator, value = text.partition("=")
        if not separator:
            raise UsageError(f"--setting {text}: write NAME=VALUE")
        settings[name] = value
    if arguments.groups is not None and not 1 <= arguments.groups <= MAX_GROUPS:
        raise UsageError(f"--groups: at least 1, at most {MAX_GROUPS}")
    families = _split(arguments.faults)
    if scheduled is not None:
        families = [fault.family for fault in scheduled]
    chosen = arguments.workloads == "all" or "eviction" in _split(arguments.workloads)
    return Options(
        nodes=arguments.nodes,
        groups=arguments.groups,
        durable=arguments.durable,
        seed=arguments.seed,
        small_memory=chosen,
        small_disks=any(name == "disk" or name.startswith("disk-full") for name in families),
        settings=settings,
    )


def plan_of(
    arguments: argparse.Namespace, system: System, scheduled: Sequence[Fault] | None
) -> Plan:
    """The run. ``UsageError``."""
    if arguments.seconds <= 0 or arguments.concurrency < 1 or arguments.rate < 0:
        raise UsageError("--seconds and --concurrency are to be positive, --rate not negative")
    families = families_of(arguments.faults, system, arguments.durable)
    faults: Sequence[Fault] = faults_of(arguments.seed, arguments.seconds, families)
    if scheduled is not None:
        faults = scheduled
        able = nemeses.possible(system, durable=arguments.durable)
        for fault in faults:
            if fault.family not in able:
                raise UsageError(f"--schedule: {system.name} cannot be given {fault.family}")
    return Plan(
        seconds=arguments.seconds,
        seed=arguments.seed,
        durable=arguments.durable,
        workloads=workloads_of(arguments.workloads, system),
        faults=tuple(faults),
        rate=arguments.rate,
        concurrency=arguments.concurrency,
        operation_s=arguments.timeout,
        attempt_s=min(arguments.attempt_timeout, arguments.timeout),
        check_seconds=arguments.check_seconds,
    )


def command(arguments: argparse.Namespace) -> int:
    """Exit status: 0 nothing wrong, 1 a violation, 2 could not judge, did not run, or wrong
    usage."""
    try:
        scheduled = schedule_of(arguments)
        system = make(arguments.system, options_of(arguments, scheduled))
        plan = plan_of(arguments, system, scheduled)
    except (UsageError, StartError) as error:
        return failed("run", str(error))
    out = (arguments.out or Path(f"run-{arguments.system}-{arguments.seed}")).absolute()
    if out.exists() and any(out.iterdir()):
        return failed("run", f"--out {out}: is not empty; choose another directory, or remove it")
    out.mkdir(parents=True, exist_ok=True)
    schedules.save(plan.faults, out / "schedule.jsonl")
    started = time.time()
    run = Run(system, plan, out)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            outcome = runner.run(_play(run))
    except StartError as error:
        return failed("run", str(error))
    facts = report.facts(arguments.system, system, plan, outcome, started)
    report.write(out, facts, outcome)
    print(report.summary(facts))
    print(f"report: {out / 'report.html'}")
    return int(report.verdict(outcome))


async def _play(run: Run) -> Outcome:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, run.stop)
    gc.freeze()
    gc.disable()
    collector = loop.create_task(_collect_the_young())
    try:
        async with Progress(run, sys.stderr):
            return await run.play()
    finally:  # for whoever called this as a function
        collector.cancel()
        gc.enable()
        gc.unfreeze()


async def _collect_the_young() -> None:
    """Python's collector, left to itself, starts when enough was made and not yet freed. What a run
    makes, it frees half a minute later, so that this was seldom the case, and millions of objects
    were waiting then: clients and proxies stood still for 0.2 to 0.4 s, once or twice a minute."""
    while True:
        await asyncio.sleep(COLLECT_EVERY_S)
        gc.collect(0)


def failed(name: str, message: str) -> int:
    """Say why the command did nothing; its exit status."""
    for line in message.splitlines():
        print(f"jepsen_like {name}: {line}", file=sys.stderr)
    return int(Verdict.UNDECIDED)
