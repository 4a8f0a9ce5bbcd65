"""With ``RAFTCACHE_COMPILE=1`` the modules that every request goes through are compiled by mypyc.

They stay the same Python modules, and without that they run as such. What mypyc does not take well
is not in them: message types of ``msgspec``, whose options it loses; classes with a base that is
not compiled, whose instances have no sound layout; and classes that others derive from.
"""

import os
import tomllib
from pathlib import Path
from typing import Any

from setuptools import setup

PACKAGE = Path("raftcache")
COMPILED = (
    "calls",
    "forwarding",
    "gathering",
    "joint_reads",
    "partition",
    "recency",
    "replica",
    "requests",
    "router",
    "scattering",
    "threads",
    "http/fastlane",
    "machine/apply",
    "machine/cache",
    "machine/costs",
    "machine/evaluate",
    "machine/expiry",
    "machine/policies",
    "machine/sessions",
    "raft/authentication",
    "raft/clock",
    "raft/durable",
    "raft/election",
    "raft/engine",
    "raft/follower_reads",
    "raft/group",
    "raft/journal",
    "raft/pace",
    "raft/peers",
    "raft/quickest",
    "raft/reads",
    "raft/recovery",
    "raft/room",
    "raft/thrift",
    "raft/transport",
    "resp/connection",
    "resp/parser",
    "resp/server",
    "resp/session",
)


def options() -> dict[str, Any]:
    """What there is for ``setup`` beside ``pyproject.toml``."""
    if os.environ.get("RAFTCACHE_COMPILE", "0") in ("", "0"):
        return {}
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    # mypyc checks types, and for that needs those of everything that is imported.
    needed = [*project["dependencies"], *project["optional-dependencies"]["compile"]]
    try:
        from mypyc.build import mypycify
    except ImportError:
        # pip first asks what it has to install before it builds.
        return {"setup_requires": needed}
    paths = [str(PACKAGE / f"{module}.py") for module in COMPILED]
    return {
        "setup_requires": needed,
        "ext_modules": mypycify(
            paths,
            opt_level=os.environ.get("MYPYC_OPT_LEVEL", "3"),
            debug_level="0",
            group_name="raftcache",
        ),
    }


setup(**options())
