"""The compiled modules hold what the same modules hold as Python.

Built once, in a directory of its own; skipped where there is no compiler.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.programs import program

ROOT = Path(__file__).parents[2]
SOURCES = ("raftcache", "jepsen_like", "pyproject.toml", "setup.py", "README.md", "LICENSE")
CLUSTERS = (
    ("--nodes", "3", "--durable"),
    ("--nodes", "3", "--memory"),
    ("--nodes", "5", "--replication", "3", "--groups", "4"),
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """That of a process that is to use the compiled modules."""
    program("cc", "gcc")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("the headers of this Python are not installed")
    # A copy: setuptools builds beside the sources.
    sources = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, sources / name)
    target = tmp_path_factory.mktemp("compiled")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation"]
    # A fraction of the time that the best code takes, and with checks of its own.
    quick = {"RAFTCACHE_COMPILE": "1", "MYPYC_OPT_LEVEL": "0"}
    done = subprocess.run(
        [*install, "--target", str(target), "."],
        cwd=sources,
        env=os.environ | quick,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return os.environ | {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(target)}


def python(environment: dict[str, str], *arguments: str) -> str:
    """What Python prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_listed_module_is_compiled(environment: dict[str, str]) -> None:
    listed = re.search(r"^COMPILED = (\(.*?\n\))", (ROOT / "setup.py").read_text(), re.M | re.S)
    assert listed is not None
    names = ["raftcache." + module.replace("/", ".") for module in ast.literal_eval(listed[1])]
    assert len(names) > 30
    code = f"import importlib; print([importlib.import_module(name).__file__ for name in {names}])"
    files = ast.literal_eval(python(environment, "-c", code))
    assert [file for file in files if file.endswith(".py")] == []
    assert python(environment, "-m", "raftcache", "--version").endswith("(compiled)\n")
    assert "compiled" not in python(dict(os.environ), "-m", "raftcache", "--version")


@pytest.mark.parametrize("cluster", CLUSTERS, ids=" ".join)
def test_they_hold_in_the_simulator(environment: dict[str, str], cluster: tuple[str, ...]) -> None:
    """Where a type is not what it says, compiled code raises, and a callback that raises is a
    violation."""
    words = ("-m", "jepsen_like", "sim", "--seeds", "4", "--seconds", "6", "--faults", "all")
    assert "4 seeds, 0 with violations" in python(environment, *words, *cluster)


def test_real_nodes_serve_both_protocols(environment: dict[str, str]) -> None:
    code = """
import urllib.request

import redis

from raftcache.demo import Cluster, Plan

with Cluster(Plan(port=0)) as cluster:
    cluster.wait_until_ready()
    clients = []
    for address in cluster.resp:
        host, port = address.rsplit(":", 1)
        clients.append(redis.Redis(host=host, port=int(port)))
    for i, client in enumerate(clients):
        with client.pipeline(transaction=False) as pipeline:
            for j in range(200):
                pipeline.set(f"{i} {j}", j)
            assert pipeline.execute() == [True] * 200
    assert all(client.get(f"{i} 7") == b"7" for client in clients for i in range(3))
    assert all(client.info("server")["raftcache_compiled"] == 1 for client in clients)
    for url in cluster.urls:
        request = urllib.request.Request(url + "/v1/keys/a", data=b"b", method="PUT")
        assert urllib.request.urlopen(request).status in (200, 201)
        assert urllib.request.urlopen(url + "/v1/keys/a").read() == b"b"
"""
    python(environment, "-c", code)
