"""Structured logs on standard error: one line per event, for people or for machines.

Our code logs through structlog (``structlog.get_logger()``); what libraries say through ``logging``
goes the same way, in the same form. Every line has a time in UTC, a level, an event and the node.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger


def configure(
    node: str,
    level: Literal["debug", "info", "warning", "error"] = "info",
    form: Literal["console", "json", "auto"] = "auto",
) -> None:
    """Set up the logs of this process. ``auto`` is console on a terminal and JSON elsewhere."""
    terminal = sys.stderr.isatty()
    number = logging.getLevelNamesMapping()[level.upper()]

    def add_node(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("node", node)
        return event

    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_node,
    ]
    finish = _console(terminal) if form == "console" or (form == "auto" and terminal) else _json()
    structlog.configure(
        processors=[*shared, *finish],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    _route_logging(number, shared, finish)


def _console(terminal: bool) -> list[Processor]:
    return [
        structlog.dev.ConsoleRenderer(
            colors=terminal, exception_formatter=structlog.dev.plain_traceback
        )
    ]


def _json() -> list[Processor]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]


def _route_logging(number: int, shared: list[Processor], finish: list[Processor]) -> None:
    """Send the standard library's records through the same processors."""

    def add_logger(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        record: Any = event.get("_record")
        if record is not None:
            event["logger"] = record.name
        return event

    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, add_logger],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *finish],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.INFO) if number < logging.INFO else number)
