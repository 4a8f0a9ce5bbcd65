"""Conditional requests (RFC 9110 section 13) in terms of versions.

An ETag is the entry's version in quotes. ``If-Match`` compares strongly, ``If-None-Match`` weakly
(section 8.8.3.2): ``W/"7"`` never satisfies an ``If-Match``. A tag that no version could have
(``"abc"``, ``"07"``) is legal and matches nothing.

A write carries one ``Condition``, evaluated by the state machine at the moment of the write. With
both headers present the two are combined: ``If-Match`` must hold and ``If-None-Match`` must hold.
All combinations but one fit a single condition; ``If-Match: *`` with a list in ``If-None-Match``
("exists, but is none of these") does not, and is refused with 400.
"""

from __future__ import annotations

import re
from typing import Final

from aiohttp import hdrs
from multidict import CIMultiDictProxy

from raftcache.http.problems import bad_request
from raftcache.ops import INT64_MAX, Condition, Match

_TAG_PATTERN: Final = r'(W/)?"([^\x00-\x20"\x7f]*)"'
_TAG: Final = re.compile(_TAG_PATTERN)
_NEXT: Final = re.compile(r"[ \t]*(?:,[ \t]*)+")
_VERSION: Final = re.compile(r"[1-9][0-9]{0,18}")

TAGS_PATTERN: Final = (
    rf"^[ \t]*(\*[ \t]*|[ \t,]*{_TAG_PATTERN}([ \t]*,[ \t,]*{_TAG_PATTERN})*[ \t,]*)$"
)
"""What ``parse_tags`` reads, as a JSON Schema pattern."""

ANY: Final = "*"
NEVER: Final = Condition(Match.VERSION_IN, ())
EXISTS: Final = Condition(Match.EXISTS)
ABSENT: Final = Condition(Match.ABSENT)

Tags = str | tuple[int, ...]
"""``ANY``, or the versions named."""


def etag(version: int) -> bytes:
    """The header line of an entry's ETag."""
    return b'ETag: "%d"\r\n' % version


def parse_tags(text: str, *, strong: bool) -> Tags:
    """The versions in an ``If-Match`` (``strong``) or ``If-None-Match`` field value. Empty list
    elements are allowed (section 5.6.1.2), an empty list is not."""
    text = text.strip(" \t")
    if text == ANY:
        return ANY
    versions: list[int] = []
    position = _after_separator(text, 0)
    seen = False
    while position < len(text):
        match = _TAG.match(text, position)
        if match is None:
            break
        seen = True
        weak, opaque = match.groups()
        if not (strong and weak) and _VERSION.fullmatch(opaque) and int(opaque) <= INT64_MAX:
            versions.append(int(opaque))
        position = match.end()
        if position < len(text):
            following = _after_separator(text, position)
            if following == position:
                break
            position = following
    if not seen or position < len(text):
        raise bad_request(
            'If-Match and If-None-Match take * or a list of entity tags, such as "17", "18".'
        )
    return tuple(versions)


def _after_separator(text: str, position: int) -> int:
    match = _NEXT.match(text, position)
    return match.end() if match else position


def _tags(headers: CIMultiDictProxy[str], name: str, *, strong: bool) -> Tags | None:
    values = headers.getall(name, None)
    return None if values is None else parse_tags(", ".join(values), strong=strong)


def write_condition(headers: CIMultiDictProxy[str]) -> Condition | None:
    """The condition of a write, or ``None``."""
    if hdrs.IF_MATCH not in headers and hdrs.IF_NONE_MATCH not in headers:
        return None
    wanted = _tags(headers, hdrs.IF_MATCH, strong=True)
    unwanted = _tags(headers, hdrs.IF_NONE_MATCH, strong=False)
    if wanted is None:
        if unwanted == ANY:
            return ABSENT
        return Condition(Match.VERSION_NOT_IN, unwanted) if isinstance(unwanted, tuple) else None
    if unwanted is None:
        return Condition(Match.VERSION_IN, wanted) if isinstance(wanted, tuple) else EXISTS
    if unwanted == ANY:
        return NEVER
    if isinstance(wanted, tuple):
        return Condition(Match.VERSION_IN, tuple(v for v in wanted if v not in unwanted))
    raise bad_request(
        "If-Match: * together with a list in If-None-Match is not supported; send one of them."
    )


def read_outcome(headers: CIMultiDictProxy[str], version: int) -> int:
    """What the conditions make of a read that found ``version``: 200, 304 or 412 (section
    13.2.2)."""
    wanted = _tags(headers, hdrs.IF_MATCH, strong=True)
    if isinstance(wanted, tuple) and version not in wanted:
        return 412
    unwanted = _tags(headers, hdrs.IF_NONE_MATCH, strong=False)
    if unwanted is not None and (unwanted == ANY or version in unwanted):
        return 304
    return 200
