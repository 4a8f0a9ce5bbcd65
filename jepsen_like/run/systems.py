"""The systems that ``--system`` names. A module is imported when its system is asked for, so that
one that misses something here does not stand in the way of the others."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final

from jepsen_like.run.system import Options, StartError, System

SYSTEMS: Final = {
    "docker": "jepsen_like.run.docker:docker_system",
    "local": "jepsen_like.run.local:local",
    "netns": "jepsen_like.run.netns:netns",
    "etcd": "jepsen_like.run.controls.etcd:etcd",
    "redis-replicated": "jepsen_like.run.controls.redis_replicated:redis_replicated",
    "pysyncobj": "jepsen_like.run.controls.stock_pysyncobj:pysyncobj",
}
"""Name -> module and function (``system.Factory``)."""
CONTROLS: Final = frozenset({"etcd", "redis-replicated", "pysyncobj"})
"""Systems of others; the rest of them are raftcache."""


def make(name: str, options: Options) -> System:
    """The system of that name. ``StartError`` when it cannot run here, ``KeyError`` when there is
    none."""
    module, _, function = SYSTEMS[name].partition(":")
    try:
        factory: Callable[[Options], System] = getattr(import_module(module), function)
    except ImportError as error:
        raise StartError(f"--system {name}: {error}") from error
    return factory(options)
