"""``python -m jepsen_like table``: each nemesis alone on raftcache and on the controls.

Each run is a process (``python -m jepsen_like run``) with a directory of its own, so that a table
that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from jepsen_like.checkers.linearizability import Verdict
from jepsen_like.run import nemeses, tabulation
from jepsen_like.run.command import UsageError, failed, named
from jepsen_like.run.page import percent
from jepsen_like.run.processes import die_with
from jepsen_like.run.report import Facts
from jepsen_like.run.runner import faults_of
from jepsen_like.run.system import Options, StartError
from jepsen_like.run.systems import SYSTEMS, make
from jepsen_like.run.tabulation import Cell, Result, Table, result_of, run_directory
from jepsen_like.sim import schedules

DEFAULT_SYSTEMS: Final = "local,netns,etcd,redis-replicated,pysyncobj"
END_S: Final = 60.0
"""A run that is interrupted may take so long to end its nodes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--out", type=Path, required=True, help="directory of the table and runs")
    parser.add_argument(
        "--systems",
        default=DEFAULT_SYSTEMS,
        help=f"some of: {', '.join(SYSTEMS)} (default: {DEFAULT_SYSTEMS})",
    )
    parser.add_argument(
        "--faults", default="all", help="all, or some, as for run; each is given alone"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run (default 10)")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each (default 1)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time (default 1)")
    parser.set_defaults(run=command)


@dataclass(frozen=True, slots=True)
class Asked:
    """The runs that the table is made of. ``able``: nemeses that each system can be given."""

    out: Path
    systems: tuple[str, ...]
    families: tuple[str, ...]
    able: dict[str, frozenset[str]]
    seconds: float
    seeds: int

    def runs(self) -> list[One]:
        """All of them: the whole row of a nemesis before the next."""
        return [
            One(self, system, family, seed)
            for family in self.families
            for system in self.systems
            if family in self.able[system]
            for seed in range(self.seeds)
        ]

    def table(self) -> Table:
        """What is there. ``UsageError``."""
        rows: dict[str, dict[str, Cell | None]] = {
            family: dict.fromkeys(self.systems) for family in self.families
        }
        results: dict[tuple[str, str], list[Result]] = {}
        for one in self.runs():
            results.setdefault((one.family, one.system), []).append(one.result())
        for (family, system), found in results.items():
            rows[family][system] = Cell(tuple(found))
        return Table(self.seconds, self.seeds, self.systems, rows)


@dataclass(frozen=True, slots=True)
class One:
    """One run of one nemesis."""

    asked: Asked
    system: str
    family: str
    seed: int

    def __str__(self) -> str:
        return f"{self.system} {self.family} seed {self.seed}"

    @property
    def directory(self) -> Path:
        """Its report's."""
        return run_directory(self.asked.out, self.system, self.family, self.seed)

    @property
    def verdict(self) -> Path:
        """Of its report."""
        return self.directory / "verdict.json"

    @property
    def log(self) -> Path:
        """What it said. Beside its directory, which has to be empty when it starts."""
        return self.directory.with_suffix(".log")

    def facts(self) -> Facts | None:
        """Its verdict, when it was played to the end, or as far as a violation. ``UsageError``."""
        try:
            facts: Facts = json.loads(self.verdict.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):  # killed while it wrote
            return None
        if facts["seconds"] != self.asked.seconds:
            raise UsageError(
                f"--out {self.asked.out}: has runs of {facts['seconds']:g} s; give --seconds"
                f" {facts['seconds']:g}, or another directory"
            )
        return None if facts["stopped_early"] and not facts["violations"] else facts

    def result(self) -> Result:
        """What came of it. ``UsageError``."""
        found = result_of(self.facts(), self.system, self.family, self.seed)
        if self.log.exists() and not self.verdict.exists():
            said = self.log.read_text(encoding="utf-8", errors="replace").strip()
            return replace(found, why=said.rpartition("\n")[2] or found.why)
        return found

    async def play(self) -> None:
        """Its process, from beginning to end."""
        if self.directory.exists():
            shutil.rmtree(self.directory)  # it never ended
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        # Some nemeses' names begin others', so that --faults alone cannot mean one of them.
        schedule = self.directory.with_suffix(".schedule.jsonl")
        schedules.save(faults_of(self.seed, self.asked.seconds, [self.family]), schedule)
        command = [sys.executable, "-m", "jepsen_like", "run", "--system", self.system]
        command += ["--seconds", str(self.asked.seconds), "--seed", str(self.seed)]
        command += ["--faults", self.family, "--schedule", str(schedule)]
        command += ["--out", str(self.directory)]
        with self.log.open("w", encoding="utf-8") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with(os.getpid()),
            )
            try:
                await process.wait()
            except asyncio.CancelledError:
                await _end(process)
                raise
        if self.result().verdict is Verdict.VALID:
            # A hundred megabytes each; what nodes that did wrong had on disk may tell why.
            shutil.rmtree(self.directory / "nodes" / "data", ignore_errors=True)


async def _end(process: asyncio.subprocess.Process) -> None:
    """In order if it can be, so that nothing of its nodes is left behind."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(process.wait(), END_S)
        except TimeoutError:
            process.kill()
            await process.wait()


def asked_of(arguments: argparse.Namespace) -> Asked:
    """What the options mean. ``UsageError``, ``StartError`` when a system cannot run here."""
    if arguments.seconds <= nemeses.FIRST_S:
        raise UsageError(f"--seconds: no fault comes before second {nemeses.FIRST_S:g}; give more")
    if arguments.seeds < 1 or arguments.jobs < 1:
        raise UsageError("--seeds and --jobs are to be positive")
    systems = tuple(dict.fromkeys(name for name in arguments.systems.split(",") if name))
    if unknown := [name for name in systems if name not in SYSTEMS]:
        raise UsageError(f"unknown systems {', '.join(unknown)}; known: {', '.join(SYSTEMS)}")
    families = nemeses.FAMILIES if arguments.faults == "all" else named(arguments.faults)
    if not systems or not families:
        raise UsageError("name a system and a fault at least")
    asked = Asked(
        out=arguments.out.absolute(),
        systems=systems,
        families=families,
        able={system: _able(system) for system in systems},
        seconds=arguments.seconds,
        seeds=arguments.seeds,
    )
    if not asked.runs():
        raise UsageError(f"{arguments.systems} cannot be given {arguments.faults}")
    return asked


def _able(system: str) -> frozenset[str]:
    """The nemeses that a system can be given by a run that names them."""
    options = Options(small_memory=True, small_disks=True)
    try:
        return frozenset(nemeses.possible(make(system, options), durable=options.durable))
    except StartError as error:
        raise StartError(f"{error}; or leave {system} out of --systems") from error


def command(arguments: argparse.Namespace) -> int:
    """Exit status: 0 raftcache's runs are valid, 1 one of them has a violation, 2 one could not be
    judged, the table is not whole, or wrong usage."""
    try:
        asked = asked_of(arguments)
        missing = [one for one in asked.runs() if one.facts() is None]
    except (UsageError, StartError) as error:
        return failed("table", str(error))
    asked.out.mkdir(parents=True, exist_ok=True)
    whole = asyncio.run(_play(asked, missing, arguments.jobs))
    table = asked.table()
    tabulation.write(asked.out, table)
    print(tabulation.markdown(table))
    print(f"table: {asked.out / 'table.html'}")
    if table.verdict is Verdict.VALID and not whole:
        return int(Verdict.UNDECIDED)
    return int(table.verdict)


async def _play(asked: Asked, runs: Sequence[One], jobs: int) -> bool:
    """Play these; whether that was not interrupted. The table is kept up to date meanwhile."""
    playing = asyncio.create_task(_all(asked, runs, jobs))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, playing.cancel)
    await asyncio.wait([playing])
    if not playing.cancelled():
        playing.result()
    return not playing.cancelled()


async def _all(asked: Asked, runs: Sequence[One], jobs: int) -> None:
    total = len(asked.runs())
    there = done = total - len(runs)
    if there:
        print(f"{there} of {total} runs are there already", file=sys.stderr)
    slots, began = asyncio.Semaphore(jobs), time.monotonic()

    async def play(one: One) -> None:
        nonlocal done
        async with slots:
            print(f"{'':9}{one} ...", file=sys.stderr, flush=True)
            await one.play()
        done += 1
        left_s = (time.monotonic() - began) / (done - there) * (total - done)
        cell = Cell((one.result(),))
        print(
            f"{done:>4}/{total:<4}{one}: {cell.text}, {percent(cell.availability)} available"
            f" (about {left_s / 60:.0f} min left)",
            file=sys.stderr,
            flush=True,
        )
        tabulation.write(asked.out, asked.table())

    async with asyncio.TaskGroup() as group:
        for one in runs:
            group.create_task(play(one))
