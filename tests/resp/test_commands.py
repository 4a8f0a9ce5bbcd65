"""The table of commands and what is said about it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from raftcache.resp.commands import TABLE

from .conftest import Served

DOCS = Path(__file__).parents[2] / "docs" / "redis.md"


def test_the_page_lists_every_command_and_no_other() -> None:
    table = DOCS.read_text().split("## Commands")[1].split("## What")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")][1:]
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", row))}
    assert listed == {name.decode() for name in TABLE}


@pytest.mark.parametrize("name", sorted(n for n, c in TABLE.items() if c.arity != -1))
async def test_every_command_refuses_a_wrong_number_of_arguments(
    name: bytes, served: Served
) -> None:
    command = TABLE[name]
    wire = await served.connect()
    wrong = abs(command.arity) - 1 if command.arity < 0 else command.arity + 1
    reply = await wire.ask(name.lower(), *["x"] * (wrong - 1))
    expected = f"-ERR wrong number of arguments for '{command.name}' command\r\n"
    assert reply == expected.encode()


@pytest.mark.parametrize("resp", [2, 3])
async def test_every_command_answers_something_whatever_its_arguments(
    resp: int, served: Served
) -> None:
    """And is no bug: nothing here may end in the reply of last resort."""
    for name, command in TABLE.items():
        for count in range(abs(command.arity) - 1, 6):
            wire = await served.connect()
            await wire.ask("HELLO", resp)
            reply = await wire.ask(name, *["0"] * count)
            assert reply and b"a bug" not in reply, (name, count, reply)
            if name not in (b"QUIT", b"CLIENT"):
                assert await wire.ask("ECHO", "still here") in (
                    b"$10\r\nstill here\r\n",
                    b"+QUEUED\r\n",
                )
            wire.close()
    served.close()
