"""``python -m jepsen_like check FILE``, ``sim``, ``run``, ``judge DIR`` and ``table``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from jepsen_like.checkers import staleness
from jepsen_like.checkers.history import HistoryError, load
from jepsen_like.checkers.linearizability import Report, Verdict, check
from jepsen_like.checkers.models import CacheModel
from jepsen_like.report.timeline import page


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 nothing wrong, 1 a violation, 2 could not judge or wrong usage."""
    parser = argparse.ArgumentParser(prog="jepsen_like", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_check(commands.add_parser("check", help="judge a history file"))
    simulation = commands.add_parser("sim", help="run clusters under virtual time")
    real = commands.add_parser("run", help="run clusters of real processes under real faults")
    again = commands.add_parser("judge", help="judge the history of a run once more")
    table = commands.add_parser("table", help="run each nemesis alone, and tabulate the verdicts")
    given = sys.argv[1:] if arguments is None else arguments
    if "sim" in given[:1]:  # judging a history must not need the system that made it
        from jepsen_like.sim.command import add_arguments

        add_arguments(simulation)
    if "run" in given[:1]:
        from jepsen_like.run.command import add_arguments as add_run_arguments

        add_run_arguments(real)
    if "judge" in given[:1]:
        from jepsen_like.run.again import add_arguments as add_judge_arguments

        add_judge_arguments(again)
    if "table" in given[:1]:
        from jepsen_like.run.table import add_arguments as add_table_arguments

        add_table_arguments(table)
    options = parser.parse_args(given)
    status: int = options.run(options)
    return status


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="JSON lines, one operation each")
    parser.add_argument("--seconds", type=float, default=60.0, help="time limit (default 60)")
    parser.add_argument("--html", type=Path, help="write a picture of what is wrong to this file")
    parser.add_argument(
        "--ttl-slack-ms",
        type=float,
        default=0.0,
        help="how much too early a key may expire, and how much too old a stale read may be",
    )
    parser.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    started = time.monotonic()
    try:
        history = load(options.file)
    except (OSError, HistoryError) as error:
        print(f"{options.file}: {error}", file=sys.stderr)
        return int(Verdict.UNDECIDED)
    slack_ns = int(options.ttl_slack_ms * 1e6)
    model = CacheModel(slack_ns=slack_ns)
    report = check(history, model=model, seconds=options.seconds)
    accusations = staleness.check(history, slack_ns=slack_ns)
    print_report(report, time.monotonic() - started)
    for accusation in accusations:
        print(f"TOO STALE: {accusation}")
    if options.html is not None:
        options.html.write_text(page(report, options.file.name), encoding="utf-8")
        print(f"picture: {options.html}")
    return int(Verdict.INVALID if accusations else report.verdict)


def print_report(report: Report, seconds: float) -> None:
    for key in report.keys:
        if key.verdict is Verdict.UNDECIDED:
            print(
                f"key {key.key!r}: undecided after {key.configurations} configurations"
                " (out of time or memory)"
            )
        if key.verdict is Verdict.INVALID:
            print(f"key {key.key!r}: NOT LINEARIZABLE")
            if key.culprit is not None:
                print(f"  no order explains {key.culprit}")
            print(f"  the value would be {key.state.value!r} here, and none of these fits:")
            for operation in key.stuck:
                print(f"    {operation}")
    total = sum(key.operations for key in report.keys)
    print(
        f"{report.verdict.name.lower()}: {total} operations, {len(report.keys)} keys,"
        f" {seconds:.2f} s"
    )


def _to_a_reader_that_may_leave() -> int:
    """``main``, ending as other tools do when nobody reads on (``| head``) or somebody pressed
    Ctrl-C."""
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return status


if __name__ == "__main__":
    sys.exit(_to_a_reader_that_may_leave())
