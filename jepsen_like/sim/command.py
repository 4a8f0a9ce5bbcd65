"""``python -m jepsen_like sim``: many seeds, or the story of one."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import Pool
from pathlib import Path
from typing import Final

from jepsen_like.checkers.history import dump
from jepsen_like.report.timeline import page
from jepsen_like.sim import guards, schedules
from jepsen_like.sim.coverage import summary
from jepsen_like.sim.faults import FAMILIES, Fault, expand
from jepsen_like.sim.run import Options, Outcome, run
from jepsen_like.sim.shrink import Reduced, shrink
from jepsen_like.sim.systems import RAFTCACHE, STOCK

TELL_EVERY_S: Final = 30.0
"""Without a terminal the progress is a line now and then."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--seeds", type=int, default=20, help="how many seeds to run")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument(
        "--faults",
        default="all",
        help="all, none or some of these families, or the part of their names before the dash:"
        f" {', '.join(FAMILIES)}",
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="virtual seconds with faults")
    parser.add_argument("--nodes", type=int, default=3, choices=(1, 3, 5))
    parser.add_argument(
        "--replication", type=int, default=0, choices=(1, 3, 5), help="nodes of a group (all)"
    )
    parser.add_argument("--groups", type=int, default=2)
    parser.add_argument("--clients", type=int, default=6)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--durable", action="store_true", default=None, help="with disks (default: the seed says)"
    )
    mode.add_argument("--memory", dest="durable", action="store_false", help="without")
    parser.add_argument("--stock", action="store_true", help="the control: PySyncObj as shipped")
    parser.add_argument(
        "--without", default="", metavar="GUARD[,GUARD]", help="switch these guards off"
    )
    parser.add_argument("--list-guards", action="store_true", help="say which there are")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--trace", action="store_true", help="tell the story (with --seed)")
    parser.add_argument("--history", type=Path, help="write the history here (with --seed)")
    parser.add_argument("--html", type=Path, help="write a picture here (with --seed)")
    parser.add_argument(
        "--schedule", type=Path, help="the faults of this file instead of drawn ones (with --seed)"
    )
    parser.add_argument(
        "--shrink", action="store_true", help="find a smaller run that still fails (with --seed)"
    )
    parser.add_argument("--shrink-runs", type=int, default=200, help="at most so many runs")
    parser.add_argument(
        "--kind", help="of violation that --shrink keeps (default: what clients saw, or the first)"
    )
    parser.add_argument("--out", type=Path, help="where --shrink writes the schedule")
    parser.set_defaults(run=command)


def options_of(arguments: argparse.Namespace) -> Options:
    """The runs' options; ``ValueError`` with a message on unknown faults or guards."""
    names = arguments.faults
    families: tuple[str, ...] = FAMILIES
    if names != "all":
        try:
            families = expand(name for name in names.split(",") if name != "none")
        except ValueError as error:
            raise ValueError(f"unknown faults {error}; known: {', '.join(FAMILIES)}") from None
    without = tuple(name for name in arguments.without.split(",") if name)
    guards.chosen(*without)
    return Options(
        seconds=arguments.seconds,
        nodes=arguments.nodes,
        replication=arguments.replication,
        groups=arguments.groups,
        durable=arguments.durable is not False,
        families=families,
        clients=arguments.clients,
        system=STOCK if arguments.stock else RAFTCACHE,
        without=without,
    )


def options_for(seed: int, arguments: argparse.Namespace) -> Options:
    """The same for one seed, which says whether there are disks unless the user does."""
    options = options_of(arguments)
    if arguments.durable is None:
        return replace(options, durable=random.Random(f"{seed}/mode").random() < 0.5)
    return options


def command(arguments: argparse.Namespace) -> int:
    """Exit status: 0 nothing wrong, 1 a violation, 2 a history that could not be judged, or wrong
    usage."""
    if arguments.list_guards:
        print(guards.table())
        return 0
    try:
        options_of(arguments)
    except ValueError as error:
        return _unusable(str(error))
    if arguments.seed is not None:
        options = options_for(arguments.seed, arguments)
        try:
            faults = None if arguments.schedule is None else schedules.load(arguments.schedule)
        except (OSError, schedules.ScheduleError) as error:
            return _unusable(f"--schedule: {error}")
        if arguments.shrink:
            return _shrink(arguments, options, faults)
        return _one(arguments, options, faults)
    if arguments.shrink or arguments.schedule is not None:
        return _unusable("--shrink and --schedule are about one run: give its --seed")
    seeds = range(arguments.start, arguments.start + arguments.seeds)
    work = [(seed, options_for(seed, arguments)) for seed in seeds]
    started, total = time.monotonic(), _Total(len(work))
    progress = Progress(len(work))
    try:
        for outcome in _outcomes(work, arguments.jobs):
            total.add(outcome)
            progress.clear()
            report(outcome, work[outcome.seed - arguments.start][1])
            so_far = f"seeds, {total.bad} bad, {total.speed:.0f} virtual s/s"
            progress.tell(len(total.counts), so_far)
    except KeyboardInterrupt:
        pass  # the summary says how far it came
    progress.clear()
    print(total.text(time.monotonic() - started))
    return total.status


@dataclass
class _Total:
    """What came of many seeds. ``wanted``: so many; a run that is stopped has fewer."""

    wanted: int
    bad: int = 0
    undecided: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0
    check_s: float = 0.0
    counts: list[Counter[str]] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """One seed more."""
        self.bad += bool(outcome.violations)
        self.undecided += outcome.undecided
        self.virtual_s += outcome.virtual_s
        self.cpu_s += outcome.cpu_s
        self.check_s += outcome.check_s
        self.counts.append(outcome.counts)

    @property
    def speed(self) -> float:
        """Virtual seconds for each of a core."""
        return self.virtual_s / max(self.cpu_s, 1e-9)

    @property
    def status(self) -> int:
        """The exit status; as of any program that Ctrl-C ended where seeds are missing."""
        if len(self.counts) < self.wanted and not self.bad:
            return 128 + signal.SIGINT
        return 1 if self.bad else 2 if self.undecided else 0

    def text(self, seconds: float) -> str:
        """The summary after so many seconds."""
        played = len(self.counts)
        seeds = str(played) if played == self.wanted else f"stopped after {played} of {self.wanted}"
        return "\n".join(summary(self.counts)) + (
            f"\n{seeds} seeds, {self.bad} with violations, {self.undecided} undecided;"
            f" {self.virtual_s:.0f} virtual s in {seconds:.0f} s"
            f" ({self.speed:.1f} virtual s per s of one core, checker {self.check_s:.1f} s)"
        )


def _unusable(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


def _outcomes(work: Sequence[tuple[int, Options]], jobs: int) -> Iterator[Outcome]:
    if jobs <= 1:
        for seed, options in work:
            yield run(seed, options)
        return
    # Ctrl-C reaches all processes of a terminal. This one ends the others, which inherit its mask.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with Pool(jobs, maxtasksperchild=20) as pool:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            yield from pool.imap_unordered(_brief, work)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _brief(work: tuple[int, Options]) -> Outcome:
    outcome = run(*work)
    outcome.history = []
    return outcome


def _shrink(arguments: argparse.Namespace, options: Options, faults: list[Fault] | None) -> int:
    """Exit status: 1 with a smaller failing run, 0 when there is nothing to shrink."""

    progress = Progress(arguments.shrink_runs)

    def seen(best: Reduced, runs: int) -> None:
        progress.tell(runs, f"runs, {_size(best)}")

    best = shrink(
        arguments.seed,
        options,
        faults=faults,
        kind=arguments.kind,
        most_runs=arguments.shrink_runs,
        seen=seen,
    )
    progress.clear()
    if best is None:
        print(f"seed {arguments.seed}: no violation, nothing to shrink")
        return 0
    path: Path = arguments.out or Path(f"schedule-{arguments.seed}.jsonl")
    schedules.save(best.faults, path)
    print(f"seed {best.seed}: {_size(best)} still give: {best.violation.line}")
    for fault in best.faults:
        print(f"  {fault} (seed {fault.seed})")
    print(f"{best.options.command(best.seed)} --schedule {path}")
    return 1


def _size(best: Reduced) -> str:
    options = best.options
    return f"{len(best.faults)} faults, {options.seconds:g} s, {options.clients} clients"


def _one(arguments: argparse.Namespace, options: Options, faults: list[Fault] | None) -> int:
    trace = print if arguments.trace else None
    outcome = run(arguments.seed, options, faults=faults, trace=trace)
    for violation in outcome.violations:
        print(f"seed {outcome.seed}: {violation}")
    print("\n".join(summary([outcome.counts])))
    print(
        f"seed {outcome.seed}: {outcome.callbacks} callbacks;"
        f" {outcome.virtual_s:.0f} virtual s in {outcome.cpu_s:.2f} CPU s,"
        f" checker {outcome.check_s:.2f} s"
    )
    if arguments.history is not None:
        dump(outcome.history, arguments.history)
    if arguments.html is not None:
        arguments.html.write_text(page(outcome.report, f"seed {outcome.seed}"), encoding="utf-8")
    return 1 if outcome.violations else 2 if outcome.undecided else 0


def report(outcome: Outcome, options: Options) -> None:
    """One line per kind of violation, with the command that replays it."""
    kinds = Counter(violation.kind for violation in outcome.violations)
    for violation in outcome.violations:
        more = kinds.pop(violation.kind, 0) - 1
        if more >= 0:
            others = f" (and {more} more)" if more else ""
            command = options.command(outcome.seed)
            print(f"seed {outcome.seed}: {violation.line}{others}  [{command}]")
    if outcome.undecided:
        print(f"seed {outcome.seed}: undecided  [{options.command(outcome.seed)}]")


class Progress:
    """A bar on a terminal; elsewhere a line now and then."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._terminal = sys.stderr.isatty()
        self._told = time.monotonic()

    def tell(self, done: int, what: str) -> None:
        """So many runs are done; ``what`` is said of them."""
        figures = f"{done}/{self._total} {what}"
        if self._terminal:
            bar = "#" * (30 * done // max(self._total, 1))
            sys.stderr.write(f"\r\x1b[K[{bar:<30}] {figures} ")
            sys.stderr.flush()
        elif time.monotonic() - self._told >= TELL_EVERY_S:
            self._told = time.monotonic()
            print(figures, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Make room for a line of output."""
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
