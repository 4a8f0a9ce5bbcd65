"""The machine that the figures are of, and who else uses it while they are taken."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")
QUIET = 0.5
"""Load average above which figures are likely to be disturbed."""


def describe() -> dict[str, Any]:
    """For the head of a report."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def in_words(machine: dict[str, Any]) -> str:
    """One line."""
    return (
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB,"
        f" Linux {machine['kernel']}, Python {machine['python']}; {machine['taken']}, load average"
        f" before: {machine['load_average_before']}"
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time that these processes have taken so far; of those that are gone: nothing."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


class Watch:
    """``with Watch(pids, client_pids) as watch``: what the servers, and everybody else, took."""

    def __init__(self, pids: Sequence[int], client_pids: Sequence[int] = ()) -> None:
        self._pids = pids
        self._client_pids = client_pids
        self.servers_s = 0.0
        self.others = 0.0
        """Share of all cores that neither the servers nor the load used: other work, and what the
        kernel does on behalf of nobody."""

    def __enter__(self) -> Watch:
        self._before = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        at, busy, servers, ours = (
            after - before for after, before in zip(self._now(), self._before, strict=True)
        )
        self.servers_s = servers
        self.others = max(0.0, busy - servers - ours) / (at * (os.cpu_count() or 1))

    def _now(self) -> tuple[float, float, float, float]:
        ours = sum(
            usage.ru_utime + usage.ru_stime
            for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        )
        ours += cpu_seconds(self._client_pids)
        return time.monotonic(), _busy_s(), cpu_seconds(self._pids), ours


def _busy_s() -> float:
    """CPU time that all cores have been busy."""
    user, nice, system, _idle, _waiting, irq, softirq, steal = (
        int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / _TICKS
