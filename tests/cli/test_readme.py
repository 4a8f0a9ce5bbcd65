"""The README's tour does what it says, line by line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftcache.demo import Cluster, Plan

ROOT = Path(__file__).parents[2]
LINES = [
    line
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for line in block.splitlines()
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(Plan(port=0, memory=True)) as running:
        running.wait_until_ready()
        yield running


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_line_of_the_tour_ends_as_it_says(cluster: Cluster) -> None:
    assert len(LINES) > 15
    for line in LINES:
        command, _, status = re.sub(r"\s+# ", "  # ", line).partition("  # ")
        for port, url in zip((8001, 8002, 8003), cluster.urls, strict=True):
            command = command.replace(f"http://127.0.0.1:{port}", url)
        command = command.replace(".venv/bin/raftcache", f"{sys.executable} -m raftcache")
        if command.startswith("curl"):
            command = command.replace("curl ", r"curl -s -w '\n%{http_code}' ", 1)
        done = subprocess.run(
            command,
            shell=True,
            cwd=ROOT,
            env=os.environ | {"RAFTCACHE_URLS": ",".join(cluster.urls)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, (line, done.stderr)
        if status.strip():
            assert done.stdout.splitlines()[-1] == status.strip(), (line, done.stdout)


def test_the_readme_shows_every_command_of_the_makefile_that_ci_uses() -> None:
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    assert "make lint test" in ci
    assert "make test" in readme
    assert "make lint" in readme
