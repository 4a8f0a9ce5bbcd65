"""``raftcache serve``: one node, with a flag for each setting."""

from __future__ import annotations

import gc
import inspect
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from raftcache.config import Settings
    from raftcache.config.reference import Row

HELP = """Run one node.

Every flag below may also be given as an environment variable (--max-memory as
RAFTCACHE_MAX_MEMORY) or as a key of a TOML file (max_memory). A flag wins over the environment, the
environment over the file. The secret has no flag: set RAFTCACHE_SECRET.
"""

GC_THRESHOLDS = (100_000, 50, 100)
"""Measured: with the collector's defaults the imports of a node take a tenth more CPU time, and p99
under load doubles."""
GRACE_AFTER_ORPHANED_S = 20.0
OTHER_OPEN_FILES = 1_000
"""Kept for connections that are no Redis client's, and files."""


def add_to(app: typer.Typer, *, with_flags: bool) -> None:
    """Register the command, with its flags or only its name."""
    parameters = [*_own_options(), *_setting_options()] if with_flags else []

    def serve(
        config: Path | None = None, until_stdin_closes: bool = False, **flags: str | bool | None
    ) -> None:
        _serve(config, until_stdin_closes, flags)

    serve.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    serve.__annotations__ = {each.name: each.annotation for each in parameters}
    app.command(help=HELP)(serve)


def _own_options() -> Iterator[inspect.Parameter]:
    config = typer.Option(
        "--config", metavar="FILE", envvar="RAFTCACHE_CONFIG", help="Read settings from this file."
    )
    until_stdin_closes = typer.Option("--until-stdin-closes", hidden=True)
    yield _parameter("config", Annotated[Path | None, config], None)
    yield _parameter("until_stdin_closes", Annotated[bool, until_stdin_closes], False)


def _setting_options() -> Iterator[inspect.Parameter]:
    """Values stay text here; ``config`` reads and judges them."""
    from raftcache.config.reference import rows

    for row in rows():
        if row.flag is None:
            continue
        names = [f"{row.flag}/--no-{row.flag[2:]}"] if row.switch else [row.flag]
        option = typer.Option(
            *names,
            metavar=None if row.switch else row.metavar,
            help=_help(row),
            show_default=False,
            rich_help_panel=row.section,
        )
        kind: Any = bool if row.switch else str
        yield _parameter(row.name, Annotated[kind | None, option], None)


def _help(row: Row) -> str:
    """The description and the default, in rich's markup."""
    text = row.description.replace("[", "\\[")
    if row.default in (None, "none", "false"):
        return text
    return f"{text} [dim]\\[default: {row.default}][/dim]"


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )


def _serve(
    config: Path | None, until_stdin_closes: bool, flags: dict[str, str | bool | None]
) -> None:
    gc.set_threshold(*GC_THRESHOLDS)
    from raftcache.config import SettingsError, load

    try:
        settings = load(flags, config)
    except SettingsError as error:
        for problem in error.problems:
            print(f"raftcache serve: {problem}", file=sys.stderr)
        raise typer.Exit(2) from None
    if until_stdin_closes:
        threading.Thread(target=_stop_when_stdin_closes, daemon=True).start()
    import asyncio

    import uvloop

    from raftcache import log
    from raftcache.node import run
    from raftcache.raft.durable import CorruptJournalError
    from raftcache.raft.storage import StorageError

    log.configure(settings.node, settings.log_level, settings.log_format)
    settings = _with_open_files(settings)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings))
    except (OSError, StorageError, CorruptJournalError) as error:
        # An address that is taken, a disk that cannot be used: for the operator, not the developer.
        print(f"raftcache serve: {error}", file=sys.stderr)
        raise typer.Exit(1) from None


def _with_open_files(settings: Settings) -> Settings:
    """As many Redis clients as the system lets this process have connections, if those are fewer
    than the settings say; some are kept for peers, HTTP and files."""
    import structlog

    from raftcache.open_files import allow_open_files

    wanted = settings.max_clients + OTHER_OPEN_FILES
    allowed = allow_open_files(wanted)
    if allowed >= wanted:
        return settings
    fewer = max(1, allowed - OTHER_OPEN_FILES if allowed > 2 * OTHER_OPEN_FILES else allowed // 2)
    structlog.get_logger().warning(
        "fewer clients than max_clients: the limit of open files is too low (ulimit -Hn)",
        open_files=allowed,
        max_clients=fewer,
    )
    return settings.model_copy(update={"max_clients": fewer})


def _stop_when_stdin_closes() -> None:
    """End with whoever started us and holds the other end of our standard input, however they end.
    A pipe works on every system, tells of kill -9 too, and allows an orderly stop; should that
    take too long (a hung event loop), the process ends anyway."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(GRACE_AFTER_ORPHANED_S)
    os._exit(1)
