"""``raftcache serve``: its help, and how it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftcache.config.reference import rows

from .conftest import raftcache


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
