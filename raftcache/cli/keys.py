"""``raftcache get | set | del | incr``: the cache from the shell, safe for any bytes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn
from urllib.parse import urlencode

import typer

from raftcache.cli import client

_PANEL = "Keys"

Urls = Annotated[
    list[str] | None,
    typer.Option(
        "--url",
        "-u",
        metavar="URL",
        help=client.URLS_HELP + " Default: RAFTCACHE_URLS (comma-separated), or "
        f"{client.DEFAULT_URL}.",
        show_default=False,
    ),
]
Timeout = Annotated[
    str, typer.Option("--timeout", metavar="DURATION", help="Give up after this long.")
]
IfVersion = Annotated[
    int | None,
    typer.Option("--if-version", metavar="N", help="Only when the entry has this version."),
]
Key = Annotated[str, typer.Argument(metavar="KEY", help="The key.", show_default=False)]

EXITS = """\
Exit status: 0 done; 1 the key is missing or the condition does not hold; 2 wrong usage; 3 no node
took the request (nothing was applied); 4 the outcome is unknown.
"""


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for name, command in (("get", get), ("set", set_), ("del", delete), ("incr", incr)):
        text = command.__doc__ or ""
        app.command(name, rich_help_panel=_PANEL, short_help=text, help=f"{text}\n{EXITS}")(command)


def get(
    key: Key,
    consistency: Annotated[
        str,
        typer.Option(metavar="linearizable|lease|stale", help="How fresh the answer must be."),
    ] = "linearizable",
    url: Urls = None,
    timeout: Timeout = "5s",
) -> None:
    """Write the value of KEY to standard output, byte for byte."""
    query = {} if consistency == "linearizable" else {"consistency": consistency}
    answer = _request(url, "GET", client.key_path(key), query, timeout)
    if answer.status == 404:
        raise typer.Exit(client.EXIT_NO)
    sys.stdout.buffer.write(_succeeded(answer).body)
    sys.stdout.buffer.flush()


def set_(
    key: Key,
    value: Annotated[
        str,
        typer.Argument(
            metavar="VALUE",
            help="The value; - reads it from standard input, @FILE from a file, @@ is a leading @.",
            show_default=False,
        ),
    ],
    ttl: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Expire after this long: 500ms, 30s, 10m, 2h."),
    ] = None,
    if_absent: Annotated[
        bool, typer.Option("--if-absent", help="Only when the key does not exist.")
    ] = False,
    if_version: IfVersion = None,
    url: Urls = None,
    timeout: Timeout = "5s",
) -> None:
    """Store VALUE under KEY; prints the entry's new version."""
    if if_absent and if_version is not None:
        raise typer.BadParameter("--if-absent and --if-version exclude each other")
    headers = {"If-None-Match": "*"} if if_absent else _condition(if_version)
    headers["Content-Type"] = "application/octet-stream"
    query = {} if ttl is None else {"ttl": ttl}
    body = _value(value)
    answer = _request(url, "PUT", client.key_path(key), query, timeout, body, headers)
    typer.echo(_succeeded(answer).headers.get("ETag", "").strip('"'))


def delete(
    key: Key, if_version: IfVersion = None, url: Urls = None, timeout: Timeout = "5s"
) -> None:
    """Remove KEY."""
    path = client.key_path(key)
    answer = _request(url, "DELETE", path, {}, timeout, headers=_condition(if_version))
    if answer.status == 404:
        raise typer.Exit(client.EXIT_NO)
    _succeeded(answer)


def incr(
    key: Key,
    by: Annotated[int, typer.Option("--by", metavar="N", help="Add this; may be negative.")] = 1,
    url: Urls = None,
    timeout: Timeout = "5s",
) -> None:
    """Add to the number stored under KEY (a missing key counts as 0); prints the sum."""
    answer = _request(url, "POST", client.key_path(key, "/incr"), {"by": str(by)}, timeout)
    typer.echo(_succeeded(answer).json["value"])


def _value(argument: str) -> bytes:
    if argument == "-":
        return sys.stdin.buffer.read()
    if argument.startswith("@@"):
        return os.fsencode(argument[1:])
    if argument.startswith("@"):
        try:
            return Path(argument[1:]).read_bytes()
        except OSError as error:
            raise typer.BadParameter(f"{argument[1:]}: {error.strerror}") from None
    return os.fsencode(argument)


def _condition(version: int | None) -> dict[str, str]:
    return {} if version is None else {"If-Match": f'"{version}"'}


def _request(
    urls: list[str] | None,
    method: str,
    path: str,
    query: dict[str, str],
    timeout: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> client.Answer:
    from raftcache.units import parse_duration

    try:
        timeout_s = parse_duration(timeout)
    except ValueError as error:
        raise typer.BadParameter(f"--timeout: {error}") from None
    target = f"{path}?{urlencode(query | {'timeout': timeout})}"
    try:
        # The node ends a request at its timeout; a little longer leaves time for its answer.
        return client.request(client.base_urls(urls), method, target, body, headers, timeout_s + 1)
    except client.UnavailableError as error:
        _fail(str(error), client.EXIT_UNAVAILABLE)
    except client.OutcomeUnknownError as error:
        _fail(f"{error}; the write may or may not have been applied", client.EXIT_UNKNOWN)


_EXITS_BY_STATUS = {
    400: client.EXIT_USAGE,
    404: client.EXIT_NO,
    409: client.EXIT_NO,
    412: client.EXIT_NO,
    413: client.EXIT_USAGE,
    504: client.EXIT_UNKNOWN,
}


def _succeeded(answer: client.Answer) -> client.Answer:
    if answer.status >= 300:
        _fail(answer.detail, _EXITS_BY_STATUS.get(answer.status, client.EXIT_UNAVAILABLE))
    return answer


def _fail(message: str, code: int) -> NoReturn:
    for line in message.splitlines():
        typer.echo(f"raftcache: {line}", err=True)
    raise typer.Exit(code)
