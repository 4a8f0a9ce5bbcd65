"""Logs: one line per event, whoever speaks."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from raftcache import log


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """What went to standard error, no terminal; what a test sets up is undone."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield lambda: capsys.readouterr().err
    structlog.reset_defaults()
    root.handlers[:], root.level = before


def lines(stderr: Callable[[], str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stderr().splitlines()]


def test_without_a_terminal_lines_are_json_with_node_level_and_time(
    stderr: Callable[[], str],
) -> None:
    log.configure("n1")
    structlog.get_logger().warning("disk is slow", seconds=1.5)
    (line,) = lines(stderr)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "disk is slow", "level": "warning", "node": "n1", "seconds": 1.5}


def test_libraries_speak_in_the_same_form(stderr: Callable[[], str]) -> None:
    log.configure("n1")
    logging.getLogger("some.library").error("no %s", "luck")
    (line,) = lines(stderr)
    assert (line["event"], line["level"], line["node"]) == ("no luck", "error", "n1")
    assert line["logger"] == "some.library"


def test_a_traceback_stays_on_its_line(stderr: Callable[[], str]) -> None:
    log.configure("n1")
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("library").exception("failed too")
    for line in lines(stderr):
        assert "ValueError: broken" in line["exception"]


def test_what_is_less_serious_than_the_level_is_left_out(stderr: Callable[[], str]) -> None:
    log.configure("n1", "warning")
    structlog.get_logger().info("quiet")
    logging.getLogger("library").info("quiet")
    assert lines(stderr) == []


def test_the_console_form_is_for_people(stderr: Callable[[], str]) -> None:
    log.configure("n1", form="console")
    structlog.get_logger().info("serving", http="127.0.0.1:8001")
    shown = stderr()
    assert "serving" in shown
    assert not shown.startswith("{")
