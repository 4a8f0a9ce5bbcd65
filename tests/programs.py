"""Programs that some tests run: installed where that is possible, else the test is skipped."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest


def program(name: str, package: str) -> str:
    """The path of ``name``, from Debian's ``package`` if need be."""
    found = shutil.which(name)
    if found is None:
        with apt_alone():
            found = shutil.which(name)  # another worker may just have installed it
            if found is None and _install(package):
                found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed, and cannot be (Debian's {package}, as root)")
    return found


@contextlib.contextmanager
def apt_alone() -> Iterator[None]:
    """No other worker's apt-get meanwhile: two at a time fail for each other's locks."""
    with Path(tempfile.gettempdir(), f"raftcache-tests-apt-{os.geteuid()}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@cache
def _install(package: str) -> bool:
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return False
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", package]):
        done = subprocess.run(
            [apt, "-qq", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=300,
            check=False,
        )
        if done.returncode != 0 and arguments[0] == "install":
            return False
    return True
