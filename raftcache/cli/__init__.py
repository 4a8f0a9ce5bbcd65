"""The command line: run a node or a demo cluster, look at a cluster, and use it from the shell.

Each command's module is small and imports what it needs when it runs: ``raftcache get`` does not
load what a server uses, nor ``raftcache serve`` what a client uses.
"""

from __future__ import annotations

import sys

import typer

from raftcache.cli import bench, demo, keys, serve, status


def _version(asked: bool) -> None:
    if asked:
        from raftcache import __version__
        from raftcache.compiled import compiled

        typer.echo(f"raftcache {__version__}{' (compiled)' if compiled() else ''}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(
        False, "--version", help="Show the version and exit.", callback=_version, is_eager=True
    ),
) -> None:
    pass


def build(command: str | None) -> typer.Typer:
    """The application. The flags of ``serve`` are there when ``command`` is that one: making them
    loads all settings, which takes longer than most other commands do."""
    app = typer.Typer(
        name="raftcache",
        help="A strongly consistent, replicated, bounded cache.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    serve.add_to(app, with_flags=command == "serve")
    demo.add_to(app)
    status.add_to(app)
    keys.add_to(app)
    bench.add_to(app)
    return app


def main() -> None:
    """Run the command that the process's arguments ask for."""
    words = (word for word in sys.argv[1:] if not word.startswith("-"))
    build(next(words, None))(prog_name="raftcache")
