"""Faults of the machine that a node runs on: its clock and its disk. What they need may be missing;
``Machine.missing`` says what.

``clock``      ``wall_clock.c``, compiled when a run starts and preloaded into the nodes, adds what
               a file says to each reading of the wall clock.
``slow disk``  strace attaches to the node and delays what makes data durable.
``full disk``  each node's data are on a tmpfs of their own, the size of which is cut down to what
               is in it. The mounts are in a mount namespace of this process and its children, so
               that they vanish with them. Only where asked for: a tmpfs is no real disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from jepsen_like.run.system import FaultKind, StartError

DISK_BYTES: Final = 2 * 1024**3
"""Of each node's tmpfs, until it is full."""
SPARE_BYTES: Final = 64 * 1024
"""Left on a full disk: a page or two for the file system itself."""
SYNCS: Final = "fdatasync,fsync"
_SHIM: Final = Path(__file__).with_name("wall_clock.c")
_OFFSET: Final = struct.Struct("=q")
_CLONE_NEWNS: Final = 0x00020000
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Machine:
    """``small_disks``: whether the data are to be where ``fill`` can do its work."""

    def __init__(self, nodes: Sequence[str], *, durable: bool, small_disks: bool) -> None:
        self._nodes = nodes
        self._compiler = shutil.which("cc") or shutil.which("gcc")
        self._small_disks = durable and small_disks
        self._durable = durable
        self._directory = Path()
        self._tracers: dict[str, list[subprocess.Popen[bytes]]] = {}
        self._mounted: dict[str, Path] = {}

    @property
    def missing(self) -> dict[FaultKind, str]:
        """Faults that cannot be given, and why."""
        reasons: dict[FaultKind, str] = {}
        if self._compiler is None:
            reasons[FaultKind.CLOCK] = "no C compiler (cc) is installed"
        if not self._durable:
            reasons[FaultKind.SLOW_DISK] = reasons[FaultKind.FULL_DISK] = "nothing is on disk"
            return reasons
        if shutil.which("strace") is None:
            reasons[FaultKind.SLOW_DISK] = "strace is not installed"
        elif os.geteuid() != 0:
            reasons[FaultKind.SLOW_DISK] = "attaching strace to a process needs root"
        if os.geteuid() != 0:
            reasons[FaultKind.FULL_DISK] = "mounting a tmpfs needs root"
        elif not self._small_disks:
            reasons[FaultKind.FULL_DISK] = "it is not among the faults named"
        return reasons

    @property
    def faults(self) -> frozenset[FaultKind]:
        """Those that can be given."""
        kinds = {FaultKind.CLOCK, FaultKind.SLOW_DISK, FaultKind.FULL_DISK}
        return frozenset(kinds - self.missing.keys())

    def prepare(self, directory: Path, data: Mapping[str, Path]) -> None:
        """Before any node is started. ``data``: the directory of each. ``StartError``."""
        self._directory = directory
        if self._compiler is not None:
            for node in self._nodes:
                self._clock_file(node).write_bytes(_OFFSET.pack(0))
            library = directory / "wall_clock.so"
            _run(self._compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(_SHIM), "-ldl")
        if self._small_disks and os.geteuid() == 0:
            self._mount(data)

    def environment(self, node: str) -> dict[str, str]:
        """Of a node's processes."""
        if self._compiler is None:
            return {}
        return {
            "LD_PRELOAD": str(self._directory / "wall_clock.so"),
            "WALL_CLOCK_FILE": str(self._clock_file(node)),
        }

    def _clock_file(self, node: str) -> Path:
        return self._directory / f"{node}.clock"

    def shift(self, node: str, seconds: float) -> None:
        """The node's wall clock is so far off, from now on."""
        with self._clock_file(node).open("r+b") as file:  # the same file: it is mapped
            file.write(_OFFSET.pack(int(seconds * 1e9)))

    async def slow(self, node: str, pids: Sequence[int], seconds: float) -> None:
        """Syncs of these processes take so much longer; 0: they do not any more."""
        for tracer in self._tracers.pop(node, []):
            tracer.send_signal(signal.SIGTERM)  # it detaches
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5.0):
                    while tracer.poll() is None:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
        if seconds <= 0:
            return
        inject = f"inject={SYNCS}:delay_exit={int(seconds * 1e6)}"
        options = ["-f", "-qqq", "-o", "/dev/null", "-e", f"trace={SYNCS}", "-e", inject]
        self._tracers[node] = [
            subprocess.Popen(  # noqa: ASYNC220  (forks in less than a millisecond)
                ["strace", *options, "-p", str(pid)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                process_group=0,
            )
            for pid in pids
        ]

    def _mount(self, data: Mapping[str, Path]) -> None:
        if _libc.unshare(_CLONE_NEWNS) != 0:
            raise StartError(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
        _run("mount", "--make-rprivate", "/")
        for node, path in data.items():
            path.mkdir(parents=True, exist_ok=True)
            _run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path))
            self._mounted[node] = path

    def fill(self, node: str, full: bool) -> None:
        """Leave no space on the node's disk, or give it back. To be repeated: what was deleted
        since is taken, too."""
        path = self._mounted[node]
        size = DISK_BYTES
        if full:
            space = os.statvfs(path)
            size = (space.f_blocks - space.f_bfree) * space.f_frsize + SPARE_BYTES
            if size >= space.f_blocks * space.f_frsize:
                return
        try:
            _run("mount", "-o", f"remount,size={size}", str(path))
        except StartError:
            if not full:
                raise
            # More was written since: what is free now is taken the next time.

    async def close(self) -> None:
        """Undo everything."""
        for node in list(self._tracers):
            await self.slow(node, (), 0.0)
        for path in self._mounted.values():
            with contextlib.suppress(StartError):
                _run("umount", "-l", str(path))
        self._mounted.clear()


def _run(*command: str) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise StartError(f"{' '.join(command)}: {ended.stderr.strip()}")
