"""Whether this is the compiled raftcache (README.md, "Compiled")."""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec


def compiled() -> bool:
    """Whether the modules that every request goes through are compiled."""
    spec = find_spec("raftcache.router")
    assert spec is not None
    return (spec.origin or "").endswith(tuple(EXTENSION_SUFFIXES))
