"""``python -m jepsen_like sim``: many seeds, or the story of one."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing import Pool
from pathlib import Path

from jepsen_like.checkers.history import dump
from jepsen_like.report.timeline import page
from jepsen_like.sim import guards
from jepsen_like.sim.faults import FAMILIES
from jepsen_like.sim.run import Options, Outcome, run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--seeds", type=int, default=20, help="how many seeds to run")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument(
        "--faults", default="all", help=f"all, none or some of {','.join(FAMILIES)}"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="virtual seconds with faults")
    parser.add_argument("--nodes", type=int, default=3, choices=(1, 3, 5))
    parser.add_argument("--groups", type=int, default=2)
    parser.add_argument("--clients", type=int, default=6)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--durable", action="store_true", default=True, help="with disks (default)")
    mode.add_argument("--memory", dest="durable", action="store_false")
    parser.add_argument(
        "--without", default="", metavar="GUARD[,GUARD]", help="switch these guards off"
    )
    parser.add_argument("--list-guards", action="store_true", help="say which there are")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--trace", action="store_true", help="tell the story (with --seed)")
    parser.add_argument("--history", type=Path, help="write the history here (with --seed)")
    parser.add_argument("--html", type=Path, help="write a picture here (with --seed)")
    parser.set_defaults(run=command)


def options_of(arguments: argparse.Namespace) -> Options:
    """The run's options; ``SystemExit`` with a message on unknown faults."""
    names = arguments.faults
    families = FAMILIES if names == "all" else tuple(n for n in names.split(",") if n != "none")
    unknown = [name for name in families if name not in FAMILIES]
    if unknown:
        raise SystemExit(f"unknown faults {unknown}; known: {', '.join(FAMILIES)}")
    without = tuple(name for name in arguments.without.split(",") if name)
    try:
        guards.chosen(*without)
    except guards.UnknownGuardError as error:
        raise SystemExit(str(error)) from None
    return Options(
        seconds=arguments.seconds,
        nodes=arguments.nodes,
        groups=arguments.groups,
        durable=arguments.durable,
        families=families,
        clients=arguments.clients,
        without=without,
    )


def command(arguments: argparse.Namespace) -> int:
    """Exit status: 0 nothing wrong, 1 a violation, 2 a history that could not be judged."""
    if arguments.list_guards:
        print(guards.table())
        return 0
    options = options_of(arguments)
    if arguments.seed is not None:
        return _one(arguments, options)
    seeds = range(arguments.start, arguments.start + arguments.seeds)
    started = time.monotonic()
    bad = undecided = 0
    virtual = wall = checking = 0.0
    for count, outcome in enumerate(_outcomes(seeds, options, arguments.jobs), 1):
        bad += bool(outcome.violations)
        undecided += outcome.undecided
        virtual += outcome.virtual_s
        wall += outcome.wall_s
        checking += outcome.check_s
        _clear()
        report(outcome, options)
        _progress(count, len(seeds), bad, virtual / max(wall, 1e-9))
    _clear()
    print(
        f"{len(seeds)} seeds, {bad} with violations, {undecided} undecided;"
        f" {virtual:.0f} virtual s in {time.monotonic() - started:.0f} s"
        f" ({virtual / max(wall, 1e-9):.1f} virtual s per s of one core, checker"
        f" {checking:.1f} s)"
    )
    return 1 if bad else 2 if undecided else 0


def _outcomes(seeds: Sequence[int], options: Options, jobs: int) -> Iterator[Outcome]:
    if jobs <= 1:
        for seed in seeds:
            yield run(seed, options)
        return
    with Pool(jobs, maxtasksperchild=20) as pool:
        yield from pool.imap_unordered(_brief, [(seed, options) for seed in seeds])


def _brief(work: tuple[int, Options]) -> Outcome:
    outcome = run(*work)
    outcome.history = []
    return outcome


def _one(arguments: argparse.Namespace, options: Options) -> int:
    outcome = run(arguments.seed, options, trace=print if arguments.trace else None)
    for violation in outcome.violations:
        print(f"seed {outcome.seed}: {violation}")
    print(
        f"seed {outcome.seed}: {outcome.operations} operations, {outcome.succeeded} succeeded,"
        f" {outcome.elections} elections, {outcome.callbacks} callbacks;"
        f" {outcome.virtual_s:.0f} virtual s in {outcome.wall_s:.2f} s,"
        f" checker {outcome.check_s:.2f} s"
    )
    if arguments.history is not None:
        dump(outcome.history, arguments.history)
    if arguments.html is not None:
        arguments.html.write_text(page(outcome.report, f"seed {outcome.seed}"), encoding="utf-8")
    return 1 if outcome.violations else 2 if outcome.undecided else 0


def report(outcome: Outcome, options: Options) -> None:
    """One line per violation, with the command that replays it."""
    for violation in outcome.violations:
        print(f"seed {outcome.seed}: {violation.line}  [{options.command(outcome.seed)}]")
    if outcome.undecided:
        print(f"seed {outcome.seed}: undecided  [{options.command(outcome.seed)}]")


def _progress(done: int, total: int, bad: int, speed: float) -> None:
    if sys.stderr.isatty():
        bar = "#" * (30 * done // total)
        sys.stderr.write(f"\r[{bar:<30}] {done}/{total}, {bad} bad, {speed:.0f} virtual s/s ")
        sys.stderr.flush()


def _clear() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
