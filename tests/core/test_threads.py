"""Blocking calls off the loop: results, errors, many at a time, one waking for several."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from raftcache.threads import THREADS, Threads

LIMIT_S = 20.0


def run(test: Callable[[Threads], Any]) -> None:
    async def main() -> None:
        threads = Threads(asyncio.get_running_loop())
        try:
            await asyncio.wait_for(test(threads), LIMIT_S)
        finally:
            threads.close()

    asyncio.run(main())


def test_a_call_has_its_result_and_runs_elsewhere() -> None:
    async def test(threads: Threads) -> None:
        name = await threads.run(lambda: threading.current_thread().name)
        assert name == "blocking-1"

    run(test)


def test_what_a_call_raises_goes_to_whoever_waits_and_the_thread_goes_on() -> None:
    async def test(threads: Threads) -> None:
        with pytest.raises(OSError, match="no space"):
            await threads.run(lambda: (_ for _ in ()).throw(OSError("no space")))
        with pytest.raises(SystemExit):
            await threads.run(lambda: (_ for _ in ()).throw(SystemExit()))
        assert await threads.run(lambda: threading.current_thread().name) == "blocking-1"

    run(test)


def test_calls_run_at_the_same_time_up_to_a_limit_and_the_rest_in_order() -> None:
    async def test(threads: Threads) -> None:
        gate, began = threading.Event(), threading.Semaphore(0)
        running: list[int] = []

        def call(number: int) -> None:
            running.append(number)
            began.release()
            gate.wait(LIMIT_S)

        calls = [threads.run(lambda number=number: call(number)) for number in range(2 * THREADS)]
        for _ in range(THREADS):
            assert await asyncio.to_thread(began.acquire, timeout=LIMIT_S)
        assert sorted(running) == list(range(THREADS))
        gate.set()
        await asyncio.gather(*calls)
        assert sorted(running) == list(range(2 * THREADS))
        assert {t.name for t in threading.enumerate() if t.name.startswith("blocking-")} >= {
            f"blocking-{i + 1}" for i in range(THREADS)
        }

    run(test)


def test_one_thread_is_enough_for_one_call_after_the_other() -> None:
    async def test(threads: Threads) -> None:
        names = {await threads.run(lambda: threading.current_thread().name) for _ in range(50)}
        assert names == {"blocking-1"}

    run(test)


def test_many_calls_all_end() -> None:
    async def test(threads: Threads) -> None:
        for _ in range(20):
            calls = [threads.run(lambda number=number: number) for number in range(500)]
            assert await asyncio.gather(*calls) == list(range(500))

    run(test)


def test_nobody_need_wait_any_longer() -> None:
    async def test(threads: Threads) -> None:
        gate = threading.Event()
        given_up = threads.run(lambda: gate.wait(LIMIT_S))
        given_up.cancel()
        gate.set()
        assert await threads.run(lambda: 7) == 7

    run(test)


def test_a_loop_that_is_closed_is_told_nothing_and_the_thread_ends() -> None:
    gate = threading.Event()
    workers: list[threading.Thread] = []

    async def test(threads: Threads) -> None:
        workers.append(await threads.run(threading.current_thread))
        threads.run(lambda: gate.wait(LIMIT_S))

    run(test)
    (worker,) = workers
    assert worker.is_alive()
    gate.set()
    worker.join(LIMIT_S)
    assert not worker.is_alive()
