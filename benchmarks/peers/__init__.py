"""The stores that ``compare.py`` can start, a file each.

A file here (or one given with ``--peer-file``) sets ``PEERS``, a list of ``Peer``. A peer starts
three nodes on free ports of this machine, with its data in a directory that it is given, and says
where they are and what protocol they speak; ``compare.py`` does the rest. A store that speaks
Redis's protocol takes some twenty lines; ``README.md`` beside this file shows them.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from raftcache.bench.workload import Workload


class PeerError(Exception):
    """A peer cannot be loaded, started or measured; the message says why."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What to start."""

    directory: Path
    """Empty and the peer's own, on the disk to be measured."""
    durable: bool
    """Nothing is acknowledged before it is on disk; else nothing need be kept."""
    groups: int = 1
    """For stores that have Raft groups or shards."""


class Through(StrEnum):
    """Where the clients are."""

    LEADER = "leader"
    """Or primary."""
    FOLLOWER = "follower"
    """All at the same one."""
    ALL = "all"
    """Spread over the nodes."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to measure."""

    workload: Workload
    clients: int
    seconds: float
    through: Through = Through.LEADER

    @property
    def name(self) -> str:
        """``SET``, ``GET``; with the depth of the pipeline if there is one."""
        depth = self.workload.pipeline
        return self.workload.name.upper() + (f", pipelines of {depth}" if depth > 1 else "")


class Running:
    """A peer that runs."""

    pids: Sequence[int] = ()
    """Its nodes' processes, for their CPU time."""
    client_pids: Sequence[int] = ()
    """Processes of the load that run for longer than one load."""

    def generators(self, load: Load) -> Sequence[str]:
        """By which load generators this load can be run; by none when the peer has no such thing
        (``Peer.notes`` says why)."""
        raise NotImplementedError

    def fill(self, load: Load) -> None:
        """Store every key that the load reads."""
        raise NotImplementedError

    def run(self, generator: str, load: Load) -> Mapping[str, Any]:
        """Run the load for its time: ``raftcache.bench.report.Report.summary``, or what of it the
        generator tells."""
        raise NotImplementedError


class Peer:
    """A store to compare with. Subclasses set the first attributes and write ``start``."""

    name: ClassVar[str]
    """As in ``--peers``."""
    about: ClassVar[str]
    """What it is, in a line."""
    linearizable: ClassVar[bool] = True
    """Whether its writes and reads, as measured here, are: through failures, too."""
    programs: ClassVar[Sequence[str]] = ()
    """What has to be on ``PATH``."""
    packages: ClassVar[Sequence[str]] = ()
    """Debian's packages of these, for ``--install``."""
    install: ClassVar[str] = ""
    """How to get it when it is no package."""

    def missing(self) -> str:
        """What is missing on this machine; empty when nothing is."""
        absent = [program for program in self.programs if shutil.which(program) is None]
        return f"no {' and no '.join(absent)} on PATH" if absent else ""

    def how_to_install(self) -> str:
        """A command, or where to look."""
        return f"apt-get install {' '.join(self.packages)}" if self.packages else self.install

    def version(self) -> str:
        """Of what is installed."""
        return ""

    def notes(self, setup: Setup) -> Sequence[str]:
        """What a reader of the figures has to know: sentences."""
        return ()

    def start(self, setup: Setup) -> AbstractContextManager[Running]:
        """Three nodes, ready to serve when the context is entered, ended when it is left."""
        raise NotImplementedError


def output_of(*command: str) -> str:
    """What a program prints first, for ``version``; empty when it does not run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return ""
    return (done.stdout or done.stderr).partition("\n")[0].strip()


def load_peers(more: Iterable[Path] = ()) -> dict[str, Peer]:
    """All peers by name: those of this folder, and of further files."""
    here = sorted(Path(__file__).parent.glob("[a-z]*.py"))
    found: dict[str, Peer] = {}
    for path in [*here, *more]:
        for peer in _peers_of(path):
            if peer.name in found:
                raise PeerError(f"{path}: there is a peer {peer.name!r} already")
            found[peer.name] = peer
    return found


def _peers_of(path: Path) -> list[Peer]:
    name = f"peers.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise PeerError(f"{path}: there is no such Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise PeerError(f"{path}: {type(error).__name__}: {error}") from error
    peers = getattr(module, "PEERS", None)
    if not isinstance(peers, list) or not all(isinstance(each, Peer) for each in peers):
        raise PeerError(f"{path}: it sets no PEERS, a list of Peer")
    return peers
