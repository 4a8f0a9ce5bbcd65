"""The settings as rows for people: ``--help`` and ``docs/configuration.md`` are made from these.

``python -m raftcache.config.reference`` rewrites the table in ``docs/configuration.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic_core import PydanticUndefined

from raftcache.config.kinds import Kind, choices_of, kind_of, show
from raftcache.config.settings import ENV_PREFIX, Settings

_BEGIN: Final = "<!-- settings: made from raftcache/config/settings.py -->\n"
_END: Final = "<!-- end of settings -->\n"


class Row(NamedTuple):
    """One setting as people see it."""

    name: str
    section: str
    description: str
    metavar: str
    default: str | None
    """As one would write it; ``None`` when the setting must be given."""
    flag: str | None
    env: str
    switch: bool
    """A flag without a value."""


def rows() -> Iterator[Row]:
    """All settings in the order of their declaration."""
    for name, field in Settings.model_fields.items():
        extra: Any = field.json_schema_extra
        kind = kind_of(field)
        yield Row(
            name=name,
            section=extra["section"],
            description=field.description or "",
            metavar="|".join(choices_of(field)) or (kind.metavar if kind else "TEXT"),
            default=extra["shown_default"] or _default(kind, field.get_default()),
            flag="--" + name.replace("_", "-") if extra["flag"] else None,
            env=ENV_PREFIX + name.upper(),
            switch=field.annotation is bool,
        )


def _default(kind: Kind | None, value: object) -> str | None:
    if value is PydanticUndefined:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else show(kind, value)


def settings_table() -> str:
    """The body of ``docs/configuration.md``: a table for each section."""
    lines: list[str] = []
    section = ""
    for row in rows():
        if row.section != section:
            section = row.section
            lines += [
                "",
                f"## {section}",
                "",
                "| setting | value | default | meaning |",
                "|---|---|---|---|",
            ]
        value = row.metavar.replace("|", " \\| ") or "true \\| false"
        lines.append(
            f"| `{row.name}` | {value} | {row.default or '**required**'} | {row.description} |"
        )
    return "\n".join(lines) + "\n\n"


def main() -> None:
    """Rewrite the table in ``docs/configuration.md``."""
    page = Path(__file__).parents[2] / "docs" / "configuration.md"
    head, _, rest = page.read_text().partition(_BEGIN)
    tail = rest.partition(_END)[2]
    page.write_text(head + _BEGIN + settings_table() + _END + tail)


if __name__ == "__main__":
    main()
