"""``raftcache demo``: real processes on real sockets, started and stopped by one command."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import TIMEOUT_S, clean_environment, raftcache

PYTHON = sys.executable
SHELL = f"alias raftcache='{PYTHON} -m raftcache'\n"
DEMO = ("demo", "--port", "0")


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Runs, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def demo() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts demos that a test ends itself; ends those that it does not."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [PYTHON, "-m", "raftcache", *DEMO, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environment(),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=TIMEOUT_S)


def test_run_gives_the_command_the_urls_and_process_ids_and_ends_with_its_status() -> None:
    command = "echo $RAFTCACHE_URLS; echo $RAFTCACHE_PIDS; exit 7"
    done = raftcache(*DEMO, "--memory", "--nodes", "2", "--run", command)
    urls, pids = done.stdout.decode().splitlines()
    assert done.returncode == 7
    assert [url.rpartition(":")[0] for url in urls.split(",")] == ["http://127.0.0.1"] * 2
    assert len(pids.split(",")) == 2
    assert not any(alive(int(pid)) for pid in pids.split(","))


def test_when_the_command_starts_every_node_serves_every_key() -> None:
    command = SHELL + (
        "IFS=,; for url in $RAFTCACHE_URLS; do\n"
        "raftcache set key-$url value -u $url || exit 9; done\n"
        "for url in $RAFTCACHE_URLS; do for key in $RAFTCACHE_URLS; do\n"
        "raftcache get key-$key -u $url || exit 9; done; done"
    )
    done = raftcache(*DEMO, "--memory", "--nodes", "2", "--groups", "2", "--run", command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"value") == 4


def test_status_shows_members_groups_and_leaders() -> None:
    command = SHELL + "raftcache status --json && raftcache status >&2"
    done = raftcache(*DEMO, "--memory", "--groups", "5", "--run", command)
    assert done.returncode == 0, done.stderr
    nodes = json.loads(done.stdout)["nodes"]
    assert list(nodes) == ["n1", "n2", "n3"]
    assert [group["leader"] is not None for group in nodes["n2"]["groups"]] == [True] * 5
    shown = done.stderr.decode()
    for word in ("n3", "ready", "leader", "term", "memory", "hit ratio"):
        assert word in shown


def test_status_tells_of_a_member_that_does_not_answer_and_exits_1() -> None:
    command = SHELL + (
        "pid=${RAFTCACHE_PIDS##*,}; kill -9 $pid; while kill -0 $pid 2>/dev/null; do :; done\n"
        "raftcache status"
    )
    done = raftcache(*DEMO, "--memory", "--groups", "1", "--run", command)
    assert done.returncode == 1
    assert b"no answer" in done.stdout


def test_status_waits_for_a_member_that_comes_back() -> None:
    command = SHELL + (
        "pid=${RAFTCACHE_PIDS##*,}; kill -STOP $pid\n"
        "raftcache status --wait 0.5; echo =$?=\n"
        "{ sleep 1; kill -CONT $pid; } &\n"
        "raftcache status --wait 40"
    )
    done = raftcache(*DEMO, "--memory", "--groups", "1", "--run", command)
    assert done.returncode == 0, done.stderr
    before, code, after = done.stdout.split(b"=")
    assert (b"no answer" in before, code, b"no answer" in after) == (True, b"1", False)


def test_a_command_killed_by_a_signal_counts_as_128_and_its_number() -> None:
    assert raftcache(*DEMO, "--memory", "--nodes", "1", "--run", "kill -9 $$").returncode == 137


def test_data_in_a_named_directory_are_there_the_next_time(tmp_path: Path) -> None:
    kept = ("--data-dir", str(tmp_path / "data"), "--nodes", "3", "--run")
    assert raftcache(*DEMO, *kept, SHELL + "raftcache set k v").returncode == 0
    assert raftcache(*DEMO, *kept, SHELL + "raftcache get k").stdout == b"v"


def test_a_directory_of_another_cluster_is_refused(tmp_path: Path) -> None:
    here = ("--data-dir", str(tmp_path), "--run", "true", "--nodes")
    assert raftcache(*DEMO, *here, "1").returncode == 0
    done = raftcache(*DEMO, *here, "2")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"of a cluster of 1 nodes; leave out --nodes 2" in done.stderr


def test_the_secret_is_readable_by_its_owner_only_and_on_no_command_line(tmp_path: Path) -> None:
    command = "cat /proc/$RAFTCACHE_PIDS/cmdline"
    done = raftcache(*DEMO, "--data-dir", str(tmp_path), "--nodes", "1", "--run", command)
    config = tmp_path / "n1.toml"
    secret = next(line for line in config.read_text().splitlines() if line.startswith("secret"))
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert secret.split('"')[1].encode() not in done.stdout
    assert b"serve" in done.stdout


def test_settings_in_the_environment_do_not_mislead_the_nodes() -> None:
    command = SHELL + "raftcache status --json"
    done = raftcache(
        *DEMO,
        *("--memory", "--nodes", "1", "--policy", "sieve", "--run", command),
        RAFTCACHE_NODE="other",
        RAFTCACHE_MEMBERS="other=127.0.0.1:1/127.0.0.1:2",
        RAFTCACHE_DATA_DIR="/nowhere",
        RAFTCACHE_GROUPS="7",
        RAFTCACHE_POLICY="fifo",
    )
    assert done.returncode == 0, done.stderr
    groups = json.loads(done.stdout)["nodes"]["n1"]["groups"]
    assert [group["policy"] for group in groups] == ["sieve"] * 4


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        done = raftcache("demo", "--memory", "--nodes", "1", "--port", str(port), "--run", "true")
    assert done.returncode == 1
    assert f"port {port} cannot be used".encode() in done.stderr
    assert b"Traceback" not in done.stderr


def test_no_node_outlives_a_demo_that_is_killed(
    demo: Callable[..., subprocess.Popen[bytes]],
) -> None:
    process = demo("--memory", "--run", "echo $RAFTCACHE_PIDS; sleep 3600 & echo $!; wait")
    assert process.stdout is not None
    *pids, command = map(
        int, (process.stdout.readline() + b"," + process.stdout.readline()).split(b",")
    )
    process.kill()
    try:
        until(lambda: not any(alive(pid) for pid in pids), "nodes outlive the demo")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(command, signal.SIGKILL)


SLEEPER = """
import os, signal, time
signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background ignores it
print(os.environ["RAFTCACHE_PIDS"], flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_command_and_nodes(
    demo: Callable[..., subprocess.Popen[bytes]], number: signal.Signals
) -> None:
    process = demo("--memory", "--run", shlex.join(["exec", PYTHON, "-c", SLEEPER]))
    assert process.stdout is not None
    pids = list(map(int, process.stdout.readline().split(b",")))
    process.send_signal(number)
    assert process.wait(TIMEOUT_S) == 128 + number
    assert not any(alive(pid) for pid in pids)


def test_ctrl_c_in_a_terminal_ends_the_demo_with_status_0() -> None:
    with terminal(PYTHON, "-m", "raftcache", *DEMO, "--memory", "--nodes", "2") as (pid, shown):
        shown.until(b"Ctrl-C stops the cluster")
        text = shown.text.decode()
        shown.send(b"\x03")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    for expected in ("curl -i -X PUT", "/incr", "?ttl=", "/v1/batch", "Who leads what"):
        assert expected in text


def test_a_node_that_dies_is_reported_with_how_to_start_it_again() -> None:
    with terminal(PYTHON, "-m", "raftcache", *DEMO, "--memory", "--nodes", "3") as (pid, shown):
        shown.until(b"Ctrl-C stops the cluster")
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(children[1]), signal.SIGKILL)
        shown.until(b"ended: killed by SIGKILL")
        shown.until(b"n2.toml")
        shown.send(b"\x03")
        os.waitpid(pid, 0)


class Terminal:
    """The other side of a pseudo-terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.text = b""

    def until(self, text: bytes) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while text not in self.text:
            ready, _, _ = select.select([self._descriptor], [], [], deadline - time.monotonic())
            assert ready, self.text.decode()
            self.text += os.read(self._descriptor, 65536)

    def send(self, data: bytes) -> None:
        os.write(self._descriptor, data)


@contextlib.contextmanager
def terminal(*command: str) -> Iterator[tuple[int, Terminal]]:
    """Run a command on a terminal of its own."""
    pid, descriptor = pty.fork()
    if pid == 0:
        os.execve(command[0], command, clean_environment() | {"COLUMNS": "200", "TERM": "dumb"})
    try:
        yield pid, Terminal(descriptor)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        os.close(descriptor)
