"""Programs that some tests run: installed where that is possible, else the test is skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache

import pytest


def program(name: str, package: str) -> str:
    """The path of ``name``, from Debian's ``package`` if need be."""
    found = shutil.which(name)
    if found is None and _install(package):
        found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed, and cannot be (Debian's {package}, as root)")
    return found


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
