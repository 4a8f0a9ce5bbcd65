"""Faults that overlap on one node."""

from __future__ import annotations

import asyncio

from jepsen_like.run.stage import Stage
from tests.run.fake import Fake


class Starting(Fake):
    """A system whose nodes say whether they serve when they are told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        self.launched: list[str] = []

    async def launch(self, node: str) -> None:
        await super().launch(node)
        self.launched.append(node)

    async def ready(self, node: str) -> bool:
        self.asked.set()
        await self.answer.wait()
        return await super().ready(node)


async def test_a_node_that_is_killed_again_while_it_starts_is_no_violation() -> None:
    system = Starting()
    node = system.nodes[0]
    told: list[tuple[str, str]] = []
    stage = Stage(
        system, lambda: 0.0, lambda _: None, lambda *what: told.append(what), durable=True
    )

    async def kill() -> None:
        async with stage.down([node]):
            pass

    first = asyncio.create_task(kill())
    await system.asked.wait()  # it was launched, and is asked whether it serves
    assert system.launched == [node]
    second = stage.down([node])
    await second.__aenter__()
    system.asked.clear()
    end = asyncio.create_task(second.__aexit__(None, None, None))
    system.answer.set()  # "no": it is not launched again yet
    await asyncio.wait_for(asyncio.gather(first, end), 10)
    assert told == []
    assert system.launched == [node, node]
    assert system.running(node)
