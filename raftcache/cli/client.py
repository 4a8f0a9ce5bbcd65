"""HTTP for the command line, over the standard library.

``http.client`` and not aiohttp's client: it imports in a tenth of the time, and a shell command
makes one request at a time. A request goes to the first node that takes it: to the next one when
nobody listens or a node answers 503, both of which mean that nothing was applied. After a write was
sent and no answer came, nothing is sent again: the outcome is unknown, and that is what is said.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

import typer

DEFAULT_URL: Final = "http://127.0.0.1:8001"
URLS_HELP: Final = "Base URL of a node; may be given several times, they are tried in order."

EXIT_NO: Final = 1
"""The key is missing, or the condition does not hold."""
EXIT_USAGE: Final = 2
EXIT_UNAVAILABLE: Final = 3
"""No node took the request; nothing was applied."""
EXIT_UNKNOWN: Final = 4
"""The write may or may not have been applied."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, read to its end."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        """What a problem document (RFC 9457) says, or the plain status."""
        try:
            return str(self.json["detail"])
        except (ValueError, KeyError, TypeError):
            return f"HTTP status {self.status}"


class UnavailableError(Exception):
    """No node took the request; it was surely not applied."""


class OutcomeUnknownError(Exception):
    """The request was sent and no answer came."""


def base_urls(given: Sequence[str] | None) -> list[str]:
    """Base URLs from flags, else from RAFTCACHE_URLS (comma-separated), else the default."""
    from_environment = os.environ.get("RAFTCACHE_URLS", "").split(",")
    urls = list(given or ()) or [url.strip() for url in from_environment if url.strip()]
    return [_checked(url) for url in urls or [DEFAULT_URL]]


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        usable = parts.scheme == "http" and parts.hostname and (parts.port or 80)
    except ValueError:
        usable = None
    if not usable:
        raise typer.BadParameter(f"{url!r}; it should be a base URL such as {DEFAULT_URL}")
    return f"http://{parts.netloc}"


def key_path(key: str, action: str = "") -> str:
    """Path of a key given on the command line, whatever bytes it has."""
    return "/v1/keys/" + quote(os.fsencode(key), safe="") + action


def ask(
    url: str,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 10.0,
) -> Answer:
    """One request to one node. ``UnavailableError`` when it cannot be reached, and
    ``OutcomeUnknownError`` when it was and does not answer."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout_s)
    try:
        try:
            connection.connect()
        except OSError as error:
            raise UnavailableError(f"{url}: {error.strerror or error}") from None
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise OutcomeUnknownError(
                f"{url}: no answer: {error or type(error).__name__}"
            ) from None
        return Answer(url, response.status, dict(response.headers.items()), content)
    finally:
        connection.close()


def request(
    urls: Sequence[str],
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 10.0,
) -> Answer:
    """One request to the first node that takes it. 503 answers are returned only by the last."""
    failures: list[str] = []
    answer: Answer | None = None
    for url in urls:
        try:
            answer = ask(url, method, path, body, headers, timeout_s)
        except UnavailableError as error:
            failures.append(str(error))
            continue
        except OutcomeUnknownError as error:
            if method != "GET":
                raise
            failures.append(str(error))
            continue
        if answer.status != 503:
            return answer
        failures.append(f"{url}: {answer.detail}")
    raise UnavailableError("\n".join(failures))
