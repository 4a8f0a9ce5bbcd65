"""Faults of processes and machines: they crash, stop, are slow, and their clocks are wrong."""

from __future__ import annotations

import random
from typing import Final

from jepsen_like.sim.stage import Action, Stage


def _crash(
    stage: Stage, draw: random.Random, seconds: float, victims: list[str], power: bool
) -> None:
    """At any callback; back after a while."""
    for victim in victims:
        process = stage.cluster.process(victim)
        if process is None:
            continue
        crash = stage.crash_of(victim, power, seconds * draw.uniform(0.5, 1.0))
        if draw.random() < 0.5:
            process.crash_after(draw.randint(1, 300), crash)
        else:
            crash()


def _victims(stage: Stage, draw: random.Random) -> list[str]:
    """One node, sometimes several."""
    names = stage.cluster.names
    if draw.random() < 0.8:
        return [stage.victim(draw)]
    return draw.sample(names, draw.randint(1, len(names)))


def _kill(stage: Stage, draw: random.Random, seconds: float) -> None:
    """The process; what it wrote is in the page cache still."""
    _crash(stage, draw, seconds, _victims(stage, draw), power=False)


def _power(stage: Stage, draw: random.Random, seconds: float) -> None:
    """The machine: un-synced data is lost, torn or kept."""
    _crash(stage, draw, seconds, _victims(stage, draw), power=True)


def _all(stage: Stage, draw: random.Random, seconds: float) -> None:
    """Everybody (in memory-only mode a minority). Some may be busy when they are back, and apply
    the log later than others."""
    if draw.random() < 0.3:
        for name in stage.cluster.names:
            if draw.random() < 0.5:
                _be_slow(stage, draw, 2.0 * seconds, name)
    _crash(stage, draw, seconds, list(stage.cluster.names), power=draw.random() < 0.7)


def _pause(stage: Stage, draw: random.Random, seconds: float) -> None:
    victim = stage.victim(draw)
    process = stage.cluster.process(victim)
    if process is not None:
        stage.say(f"pause {victim}")
        process.pause()
        stage.until(seconds, process.resume)


def _slow(stage: Stage, draw: random.Random, seconds: float) -> None:
    _be_slow(stage, draw, seconds, stage.victim(draw))


def _be_slow(stage: Stage, draw: random.Random, seconds: float, victim: str) -> None:
    cost, turn_cost = draw.choice((0.0001, 0.0005, 0.002)), draw.choice((0.0, 0.005, 0.03))
    stage.say(f"slow {victim} {cost} s per callback, {turn_cost} s more to apply entries")
    stage.cluster.slow(victim, cost, turn_cost / stage.cluster.apply_entries)
    stage.until(seconds, lambda: stage.cluster.slow(victim, 0.0))


def _jump(stage: Stage, draw: random.Random, seconds: float) -> None:
    """Of the wall clock; it stays wrong."""
    process = stage.cluster.process(stage.victim(draw))
    if process is not None:
        seconds = draw.choice((-3600.0, -1.0, 1.0, 3600.0))
        process.clock.jump(seconds)
        stage.cluster.wall_errors[process.name] += seconds
        stage.say(f"wall clock of {process.name} jumps {seconds:g} s")


def _drift(stage: Stage, draw: random.Random, seconds: float) -> None:
    """Of both clocks, until the process ends or another drift begins."""
    del seconds
    process = stage.cluster.process(stage.victim(draw))
    if process is not None:
        process.clock.set_rate(1.0 + draw.uniform(-0.02, 0.02))
        stage.say(f"clock of {process.name} runs at {process.clock.rate:.4f}")


ACTIONS: Final[dict[str, Action]] = {
    "crash-kill": _kill,
    "crash-power": _power,
    "crash-all": _all,
    "pause": _pause,
    "slow": _slow,
    "clock-jump": _jump,
    "clock-drift": _drift,
}
