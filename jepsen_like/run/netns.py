"""raftcache with each node in a network namespace of its own (``namespaces``). Needs root."""

from __future__ import annotations

from jepsen_like.run.local import Raftcache
from jepsen_like.run.namespaces import Namespaces
from jepsen_like.run.system import Options


def netns(options: Options) -> Raftcache:
    """``--system netns``."""
    return Raftcache(options, Namespaces())
