"""``python -m jepsen_like sim``: what it runs, what it says, what replays it."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from measuring.machine import cpu_seconds

from jepsen_like.__main__ import main
from jepsen_like.sim import command
from jepsen_like.sim.run import Options, Outcome
from jepsen_like.sim.scheduler import Violation


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_the_seed_says_whether_there_are_disks_unless_the_user_does() -> None:
    drawn = {command.options_for(seed, parsed()).durable for seed in range(20)}
    assert drawn == {True, False}
    assert {command.options_for(seed, parsed("--memory")).durable for seed in range(20)} == {False}
    assert {command.options_for(seed, parsed("--durable")).durable for seed in range(20)} == {True}


@pytest.mark.parametrize("faults", ["all", "none", "partition,loss", "disk"])
def test_the_replay_line_means_the_same_run(faults: str) -> None:
    for seed in range(4):
        options = command.options_for(seed, parsed("--faults", faults, "--nodes", "5"))
        words = shlex.split(options.command(seed))
        assert words[:4] == ["python", "-m", "jepsen_like", "sim"]
        again = parsed(*words[4:])
        assert (again.seed, command.options_for(seed, again)) == (seed, options)


def test_unknown_faults_are_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match=r"unknown faults earthquake; known: .*disk-flip"):
        command.options_of(parsed("--faults", "loss,earthquake"))


def test_a_violation_is_one_line_with_its_replay(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome(7, [Violation(1.5, "two leaders in a term", "n1 and n2")])
    command.report(outcome, Options(durable=False))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("seed 7: two leaders in a term at 1.500000 s: n1 and n2  [python -m")
    assert line.endswith("--memory --clients 6]")


def test_a_run_of_some_seeds_says_what_they_went_through(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["sim", "--seeds", "2", "--seconds", "1.5", "--faults", "crash"]) == 0
    said = capsys.readouterr()
    assert "elections" in said.out
    assert "2 seeds, 0 with violations, 0 undecided" in said.out
    assert "\r" not in said.err, "no bar where there is no terminal"


def test_without_a_terminal_the_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = command.Progress(10)
    progress.tell(1, "seeds, 0 bad")
    monkeypatch.setattr(command, "TELL_EVERY_S", 0.0)
    progress.tell(2, "seeds, 1 bad")
    assert capsys.readouterr().err == "2/10 seeds, 1 bad\n"


@pytest.mark.parametrize("bad", [False, True])
def test_a_run_that_is_stopped_says_what_it_found(
    bad: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(seed: int, options: Options) -> Outcome:
        if seed == 2:
            raise KeyboardInterrupt
        return Outcome(seed, [Violation(1.5, "two leaders in a term", "n1 and n2")] * bad)

    monkeypatch.setattr(command, "run", run)
    assert main(["sim", "--seeds", "5"]) == (1 if bad else 130)
    assert f"stopped after 2 of 5 seeds, {2 * bad} with violations" in capsys.readouterr().out


IMPORTED = """
import signal, sys
from jepsen_like import __main__
from jepsen_like.sim import command
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
print("imported", flush=True)
sys.exit(__main__.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_ends_all_processes_without_a_traceback(jobs: int) -> None:
    words = ["sim", "--seeds", "100", "--seconds", "600", "--jobs", str(jobs)]
    with subprocess.Popen(
        [sys.executable, "-c", IMPORTED, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "imported\n"
        before, deadline = work(process.pid), time.monotonic() + 120
        while work(process.pid) < before + 1.0:  # it plays
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        try:
            said, errors = process.communicate(timeout=60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert "stopped after 0 of 100 seeds" in said and "Traceback" not in errors


def work(pid: int) -> float:
    """CPU seconds of a process and of its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return cpu_seconds([pid, *map(int, children)])
