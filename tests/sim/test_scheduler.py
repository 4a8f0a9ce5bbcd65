"""Virtual time, tasks, crashes, pauses and clocks."""

from __future__ import annotations

import asyncio

import pytest

from jepsen_like.sim.scheduler import EPOCH, Scheduler, StandstillError

from .conftest import World


def test_timers_run_in_order_and_nothing_sleeps() -> None:
    scheduler = Scheduler(1)
    process = scheduler.process("a")
    seen: list[tuple[float, str]] = []
    for delay, name in ((3600.0, "hour"), (1.0, "second"), (1.0, "second too"), (0.0, "now")):
        process.call_later(delay, lambda name=name: seen.append((scheduler.now, name)))
    scheduler.run(10_000.0)
    assert seen == [(0.0, "now"), (1.0, "second"), (1.0, "second too"), (3600.0, "hour")]
    assert scheduler.now == 10_000.0


def test_ready_callbacks_are_first_in_first_out_and_cancellable() -> None:
    scheduler = Scheduler(1)
    process = scheduler.process("a")
    seen: list[int] = []
    handles = [process.call_soon(seen.append, number) for number in range(5)]
    handles[2].cancel()
    timer = process.call_later(1.0, seen.append, 99)
    timer.cancel()
    scheduler.run(2.0)
    assert seen == [0, 1, 3, 4]


def test_run_until_stops_as_soon_as_the_predicate_holds() -> None:
    scheduler = Scheduler(1)
    process = scheduler.process("a")
    seen: list[float] = []
    for delay in (1.0, 2.0, 3.0):
        process.call_later(delay, lambda: seen.append(scheduler.now))
    assert scheduler.run_until(lambda: len(seen) == 2, limit=10.0)
    assert scheduler.now == 2.0
    assert not scheduler.run_until(lambda: len(seen) == 9, limit=10.0)
    assert scheduler.now == 10.0


def test_tasks_futures_and_asyncio_helpers_work_under_virtual_time(world: World) -> None:
    node = world.nodes["a"]
    answer = node.future()
    seen: list[object] = []

    async def story() -> None:
        await asyncio.sleep(5.0)
        seen.append(round(world.scheduler.now, 6))
        try:
            async with asyncio.timeout(2.0):
                await asyncio.shield(answer)
        except TimeoutError:
            seen.append("timeout")
        seen.append(await asyncio.wait_for(answer, 60.0))
        seen.append(await asyncio.gather(asyncio.sleep(1, "x"), asyncio.sleep(2, "y")))

    node.spawn(story(), "story")
    node.call_later(10.0, answer.set_result, 42)
    world.run(20.0)
    assert seen == [5.0, "timeout", 42, ["x", "y"]]
    assert world.scheduler.violations == []


def test_an_exception_in_a_callback_is_a_violation_with_its_traceback(world: World) -> None:
    def broken() -> None:
        raise ValueError("out of cheese")

    async def broken_task() -> None:
        raise KeyError("task")

    world.nodes["a"].call_soon(broken)
    world.nodes["b"].spawn(broken_task(), "broken")
    world.run(1.0)
    kinds = [violation.kind for violation in world.scheduler.violations]
    assert kinds == ["a callback raised", "a callback raised"]
    assert "out of cheese" in world.scheduler.violations[0].detail
    assert "in broken" in world.scheduler.violations[0].detail
    assert "KeyError" in world.scheduler.violations[1].detail


def test_callbacks_that_never_let_time_move_are_a_violation() -> None:
    scheduler = Scheduler(1)
    process = scheduler.process("a")

    def again() -> None:
        process.call_soon(again)

    process.call_soon(again)
    with pytest.raises(StandstillError):
        scheduler.run(1.0)
    assert [violation.kind for violation in scheduler.violations] == ["standstill"]


def test_a_crash_drops_callbacks_timers_and_tasks_of_that_process_only(world: World) -> None:
    seen: list[str] = []

    async def forever(name: str) -> None:
        try:
            while True:
                await asyncio.sleep(1.0)
                seen.append(name)
        finally:
            world.nodes[name].call_soon(seen.append, f"{name} cleaned up")

    for name in "ab":
        world.nodes[name].spawn(forever(name), name)
        world.nodes[name].call_later(3.5, seen.append, f"{name} timer")
    world.run(2.5)
    world.nodes["a"].process.crash()
    world.nodes["a"].call_soon(seen.append, "from the grave")
    world.run(2.0)
    assert seen == ["a", "b", "a", "b", "b", "b timer", "b"]


def test_a_crash_may_come_between_two_callbacks_of_one_instant(world: World) -> None:
    node = world.nodes["a"]
    seen: list[int] = []
    node.process.crash_after(3, node.process.crash)
    for number in range(10):
        node.call_soon(seen.append, number)
    world.run(1.0)
    assert seen == [0, 1, 2]
    assert not node.process.alive


def test_a_paused_process_goes_on_later_as_if_nothing_had_happened(world: World) -> None:
    node = world.nodes["a"]
    seen: list[tuple[str, float]] = []
    for number in (1, 2, 3):
        node.call_later(float(number), lambda n=number: seen.append((f"t{n}", world.scheduler.now)))
    world.run(1.5)
    node.process.pause()
    world.run(5.0)
    assert [name for name, _ in seen] == ["t1"]
    node.process.resume()
    world.run(1.0)
    assert seen == [("t1", 1.0), ("t2", 6.5), ("t3", 6.5)]


def test_a_slow_process_takes_time_for_every_callback_and_keeps_their_order(world: World) -> None:
    node = world.nodes["a"]
    seen: list[tuple[int, float]] = []
    node.process.slow(0.5)
    for number in range(4):
        node.call_soon(lambda n=number: seen.append((n, world.scheduler.now)))
    world.run(10.0)
    assert seen == [(0, 0.0), (1, 0.5), (2, 1.0), (3, 1.5)]


def test_a_slow_process_takes_time_for_the_work_that_a_callback_does(world: World) -> None:
    process = world.nodes["a"].process
    seen: list[float] = []
    done = [0]
    process.progress = lambda: done[0]

    def works(units: int) -> None:
        seen.append(world.scheduler.now)
        done[0] += units

    works(1000)
    process.slow(0.5, 0.25)
    for units in (2, 0, 4, -8, 0):
        process.call_soon(works, units)
    world.run(10.0)
    assert seen == [0.0, 0.0, 1.0, 1.5, 3.0, 3.5], "work done while it was quick costs nothing"
    process.slow(0.0)
    seen.clear()
    for _ in range(2):
        process.call_soon(works, 1)
    world.run(10.0)
    assert seen == [10.0, 10.0]


def test_clocks_drift_and_the_wall_clock_jumps_but_the_monotonic_one_does_not() -> None:
    scheduler = Scheduler(1)
    process = scheduler.process("a", rate=1.01)
    start, wall = process.clock.now(), process.clock.wall()
    assert wall == pytest.approx(EPOCH)
    fired: list[float] = []
    process.call_later(101.0, lambda: fired.append(scheduler.now))
    scheduler.run(200.0)
    assert fired == [pytest.approx(100.0)]  # 101 s of a fast clock
    assert process.clock.now() - start == pytest.approx(202.0)
    process.clock.jump(-3600.0)
    assert process.clock.wall() - wall == pytest.approx(202.0 - 3600.0)
    assert process.clock.now() - start == pytest.approx(202.0)
    process.clock.set_rate(0.5)
    scheduler.run(300.0)
    assert process.clock.now() - start == pytest.approx(252.0)


def test_every_incarnation_has_its_own_clock_and_randomness(world: World) -> None:
    first = world.nodes["a"]
    second = world.start("a")
    assert second.process.incarnation == 2
    assert first.now() != second.now()
    assert first.random.random() != second.random.random()
