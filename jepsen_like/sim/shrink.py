"""From a run that fails to a smaller one that fails in the same way.

Delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002:
ddmin) over the faults, which are plain data; then shorter faults, a shorter run, fewer clients, and
once more over the faults. A candidate counts when its run shows a violation of the same kind; of
the same cause, nobody can promise. Runs are deterministic, so the result is too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from jepsen_like.sim.faults import Fault
from jepsen_like.sim.run import Options, Outcome, drawn, run
from jepsen_like.sim.scheduler import Violation

SHORTEST_S: Final = 0.02
"""No fault is made shorter."""
MARGIN_S: Final = 0.5
"""A run is first cut so long after its violation."""

Seen = Callable[["Reduced", int], None]


@dataclass(frozen=True, slots=True)
class Reduced:
    """The smallest failing run so far: its schedule, its options and what it violates."""

    seed: int
    faults: tuple[Fault, ...]
    options: Options
    violation: Violation


class _BudgetSpentError(Exception):
    """No more runs."""


class _Shrinker:
    """``best`` always fails."""

    def __init__(self, best: Reduced, most_runs: int, seen: Seen) -> None:
        self.best = best
        self.runs = 0
        self._most_runs = most_runs
        self._seen = seen
        self._failed: set[tuple[tuple[Fault, ...], Options]] = set()

    def shrink(self) -> None:
        self._cut()
        self._fewer_faults()
        self._shorter_faults()
        self._shorter_run()
        self._fewer_clients()
        self._fewer_faults()

    def _accept(self, faults: Sequence[Fault], options: Options) -> bool:
        """Whether that fails, too; then it is the best."""
        candidate = (tuple(faults), options)
        if candidate in self._failed:
            return False
        if self.runs >= self._most_runs:
            raise _BudgetSpentError
        self.runs += 1
        found = violation_of(run(self.best.seed, options, faults=list(faults)), self.kind)
        if found is None:
            self._failed.add(candidate)
        else:
            self.best = Reduced(self.best.seed, *candidate, found)
        self._seen(self.best, self.runs)
        return found is not None

    @property
    def kind(self) -> str:
        return self.best.violation.kind

    def _cut(self) -> None:
        """What begins after the violation did not cause it."""
        end = round(self.best.violation.time + MARGIN_S, 1)
        if end < self.best.options.seconds:
            faults = [fault for fault in self.best.faults if fault.start < end]
            self._accept(faults, replace(self.best.options, seconds=end))

    def _fewer_faults(self) -> None:
        """ddmin: leave out ever smaller parts, until no single fault can be left out."""
        parts = 2
        while self.best.faults:
            faults = self.best.faults
            size = -(-len(faults) // parts)
            for at in range(0, len(faults), size):
                if self._accept(faults[:at] + faults[at + size :], self.best.options):
                    parts = max(parts - 1, 2)
                    break
            else:
                if size == 1:
                    return
                parts = min(2 * parts, len(faults))

    def _shorter_faults(self) -> None:
        """Halve each fault as often as that goes well."""
        for place in range(len(self.best.faults)):
            while (fault := self.best.faults[place]).seconds > SHORTEST_S:
                length = max(SHORTEST_S, round(fault.seconds / 2, 3))
                if length >= fault.seconds:
                    break
                faults = list(self.best.faults)
                faults[place] = replace(fault, seconds=length)
                if not self._accept(faults, self.best.options):
                    break

    def _shorter_run(self) -> None:
        """End the time of faults (and of the load before recovery) as early as it goes."""
        last = max([fault.start for fault in self.best.faults], default=0.0)
        for step in (4.0, 1.0, 0.3, 0.1):
            while (end := round(self.best.options.seconds - step, 1)) > max(last, 1.0):
                if not self._accept(self.best.faults, replace(self.best.options, seconds=end)):
                    break

    def _fewer_clients(self) -> None:
        for clients in range(1, self.best.options.clients):
            if self._accept(self.best.faults, replace(self.best.options, clients=clients)):
                return


def violation_of(outcome: Outcome, kind: str | None = None) -> Violation | None:
    """The first violation of ``kind``; without one, of what clients saw if they saw something, else
    the first of all."""
    for wanted in (kind,) if kind is not None else ("not linearizable", None):
        found = [v for v in outcome.violations if wanted is None or v.kind == wanted]
        if found:
            return min(found, key=lambda violation: violation.time)
    return None


def shrink(
    seed: int,
    options: Options,
    *,
    faults: Sequence[Fault] | None = None,
    kind: str | None = None,
    most_runs: int = 200,
    seen: Seen = lambda best, runs: None,
) -> Reduced | None:
    """A smaller failing run, after at most ``most_runs`` runs; ``None`` when this one does not
    fail. ``kind``: of violation (see ``violation_of``). ``seen`` hears of the best after every
    run."""
    faults = drawn(seed, options) if faults is None else faults
    violation = violation_of(run(seed, options, faults=list(faults)), kind)
    if violation is None:
        return None
    shrinker = _Shrinker(Reduced(seed, tuple(faults), options, violation), most_runs, seen)
    with suppress(_BudgetSpentError):
        shrinker.shrink()
    return shrinker.best
