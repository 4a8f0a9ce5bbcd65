"""``benchmarks/degradation.py`` as a user runs it, with everything small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import clean_environment

from .conftest import BENCHMARKS

TIMEOUT_S = 180
SMALL = {
    "--seconds": "0.4",
    "--warm-up": "0.1",
    "--repeats": "1",
    "--keys": "200",
    "--many-keys": "2000",
    "--idle": "20",
    "--stopped-ms": "30",
    "--running-ms": "30",
}


def test_each_condition_is_there_while_it_is_measured(tmp_path: Path) -> None:
    options = [word for pair in SMALL.items() for word in pair]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "degradation.py", *options, "--out", tmp_path],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "degradation.json").read_text())
    said = {row["condition"]: row["said"] for row in results["figures"]}
    assert len(said) == 5
    assert said["many keys"] == "2,000 keys instead of 200"
    assert said["idle connections"] == "20 connections at the leader"
    assert said["1 MiB values"].partition(" ")[0] != "0.0"
    assert not said["slow follower"].endswith(" 0 times")
    assert "emptied: 0" not in said["snapshot in progress"]
    for row in results["figures"]:
        for state in (row["without"], row["with"]):
            assert state["ops_per_s"]["median"] > 0
            assert (state["errors"], state["misses"]) == (0, 0), row["condition"]
    assert (tmp_path / "degradation.txt").read_text().strip() in done.stdout
    assert (tmp_path / "degradation.md").read_text().count("| SET |") == 5
