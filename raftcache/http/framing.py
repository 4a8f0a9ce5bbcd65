"""Where a request ends, for those whose length cannot be in doubt.

A connection that knows this hands aiohttp one request at a time and takes the next itself once
that is answered. What is told apart here is only what RFC 9112, section 6.3, leaves one reading of:
a head of plain header lines with one ``Content-Length`` at most, no transfer coding, nothing that
changes the connection. Everything else has no end that is known here.
"""

from __future__ import annotations

import re
from typing import Final

_HEAD: Final = re.compile(
    rb"(?:GET|HEAD|PUT|POST|DELETE) [\x21-\x7e]++ HTTP/1\.1\r\n"
    rb"(?:"
    rb"(?(1)(?!))(?i:Content-Length): ([0-9]{1,15}+)\r\n"  # (?(1)(?!)): not a second time
    rb"|(?i:Connection: keep-alive)\r\n"
    rb"|(?!(?i:Content-Length|Transfer-Encoding|Connection|Upgrade|Expect|Trailer|TE):)"
    rb"[\w!#$%&'*+.^`|~-]++: [\x20-\x7e]*+\r\n"
    rb")*\r\n"
)
"""Linear in its input, whatever that is: no two alternatives take the same line, and runs of
characters are possessive. The group is not, see ``fastlane``."""

_LONGEST_HEAD: Final = 4096
_LONGEST: Final = 65_536
"""Bytes of head and body. aiohttp's own buffer is as large, so that it never stops reading because
of such a request."""


def request_end(data: bytes) -> int | None:
    """How many bytes the request at the front of ``data`` has, of which some may still be to come;
    ``None`` when that is not known."""
    match = _HEAD.match(data, 0, _LONGEST_HEAD)
    if match is None:
        return None
    size = match[1]
    end = match.end() + (0 if size is None else int(size))
    return end if end <= _LONGEST else None
