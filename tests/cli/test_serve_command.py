"""``raftcache serve``: its help, and how it refuses."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from raftcache.config.reference import rows

from .conftest import TIMEOUT_S, clean_environment, raftcache


def test_help_shows_every_setting_but_the_secret() -> None:
    shown = raftcache("serve", "--help", COLUMNS="200").stdout.decode()
    for row in rows():
        assert (row.flag or f"{row.env}") in shown, row.name
    assert "--secret" not in shown
    assert "--until-stdin-closes" not in shown


@pytest.mark.parametrize("command", ["", "serve", "demo", "status", "get", "set", "del", "incr"])
def test_every_command_has_help(command: str) -> None:
    done = raftcache(*filter(None, [command]), "--help")
    assert done.returncode == 0
    assert b"Usage: raftcache" in done.stdout


def test_wrong_settings_exit_2_with_a_line_for_each(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('max_memory = "lots"\n')
    done = raftcache("serve", "--config", str(config), "--groups", "0", RAFTCACHE_POLICY="random")
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 2
    assert done.stdout == b""
    for start in ("groups: '0'", "policy: 'random'", "max_memory: 'lots'", "node: not given"):
        assert any(line.startswith(f"raftcache serve: {start}") for line in lines), (start, lines)
    assert all(line.startswith("raftcache serve: ") for line in lines)


def test_the_version_is_shown() -> None:
    from raftcache import __version__

    assert raftcache("--version").stdout.decode() == f"raftcache {__version__}\n"


def test_an_address_that_is_taken_is_told_without_a_traceback() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        taken = f"127.0.0.1:{held.getsockname()[1]}"
        done = raftcache(
            *("serve", "--node", "n1", "--memory"), "--members", f"n1={taken}/127.0.0.1:1"
        )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert any(
        line.startswith("raftcache serve: ") and "address already in use" in line.lower()
        for line in done.stderr.decode().splitlines()
    )


def test_a_data_directory_that_cannot_be_used_is_told_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = raftcache(
        *("serve", "--node", "n1", "--members", "n1=127.0.0.1:1/127.0.0.1:2"),
        *("--data-dir", str(tmp_path / "file")),
    )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert f"raftcache serve: {tmp_path / 'file'}".encode() in done.stderr


ASK = """
import os, socket
limits = open(f"/proc/{os.environ['RAFTCACHE_PIDS']}/limits").read()
given = next(line for line in limits.splitlines() if "open files" in line)
host, port = os.environ["RAFTCACHE_RESP"].split(":")
with socket.create_connection((host, int(port)), timeout=10) as connection:
    connection.sendall(b"CONFIG GET maxclients\\r\\n")
    told = connection.recv(100).split()[-1].decode()
print(given.split()[3], told)
"""


@pytest.mark.parametrize(
    ("hard", "max_clients", "limit", "told"),
    [(4096, 1500, 2500, 1500), (4096, 10_000, 4096, 3096), (1024, 10_000, 1024, 512)],
    ids=["enough", "too few", "hardly any"],
)
def test_a_node_asks_for_the_open_files_that_its_clients_need(
    hard: int, max_clients: int, limit: int, told: int
) -> None:
    demo = [sys.executable, "-m", "raftcache", "demo", "--nodes", "1", "--memory", "--port", "0"]
    inside = shlex.join([sys.executable, "-c", ASK])
    limited = f'ulimit -Sn 256; ulimit -Hn {hard}; exec {shlex.join(demo)} --run "$INSIDE"'
    done = subprocess.run(
        ["sh", "-c", limited],
        capture_output=True,
        env=clean_environment() | {"INSIDE": inside, "RAFTCACHE_MAX_CLIENTS": str(max_clients)},
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [b"%d" % limit, b"%d" % told]
