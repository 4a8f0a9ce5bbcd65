"""From flags, environment and file to ``Settings``, or to lines that say what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, TomlConfigSettingsSource

from raftcache.config.kinds import MEMBERS, Kind, Member, choices_of, kind_of, show
from raftcache.config.settings import Settings


class SettingsError(Exception):
    """Settings that cannot be used; ``problems`` has one readable line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def load(flags: Mapping[str, Any], config: Path | None = None) -> Settings:
    """Settings of this process: ``flags`` (by setting name; ``None`` is not given), environment,
    the TOML file ``config``, defaults. Raises ``SettingsError``."""

    class Everywhere(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            sources = (init_settings, env_settings)
            if config is None:
                return sources
            return *sources, TomlConfigSettingsSource(settings_cls, toml_file=config)

    given = {name: value for name, value in flags.items() if value is not None}
    try:
        if config is not None:
            config.open("rb").close()
        return Everywhere(**given)
    except ValidationError as error:
        raise SettingsError(_problems(error)) from None
    except OSError as error:
        raise SettingsError([f"config: {config}: {error.strerror}"]) from None
    except ValueError as error:
        raise SettingsError([f"config: {config} is not TOML: {error}"]) from None


def _problems(error: ValidationError) -> list[str]:
    """One line for each thing that pydantic found."""
    details = error.errors()
    inner = {detail["loc"][:1] for detail in details if len(detail["loc"]) > 1}
    lines: list[str] = []
    for detail in details:
        if not detail["loc"]:
            lines.extend(str(detail["ctx"]["error"]).split("\n"))
        elif detail["loc"] not in inner and detail["type"] != "default_factory_not_called":
            lines.append(_problem(detail["loc"], detail["type"], detail["input"]))
    return lines


def _problem(path: tuple[int | str, ...], code: str, value: object) -> str:
    name = ".".join(str(part + 1) if isinstance(part, int) else part for part in path)
    if code == "extra_forbidden":
        return f"{name}: there is no setting of this name"
    if code == "missing":
        return f"{name}: not given; it should be {should_be(path)}"
    shown = "value hidden" if path[0] == "secret" else repr(value)
    return f"{name}: {shown}; it should be {should_be(path)}"


def should_be(path: Sequence[int | str]) -> str:
    """What the setting at ``path`` (a name, or a name, an index and a member's field) should be."""
    model: type[BaseModel] = Member if len(path) > 1 else Settings
    field = model.model_fields.get(str(path[-1]))
    if field is None or path == ("members",):
        return MEMBERS.should_be
    if path[0] == "secret":
        return "text of at least 16 characters"
    if choices := choices_of(field):
        return "one of " + ", ".join(choices)
    kind = kind_of(field)
    return (kind.should_be if kind else "text") + _bounds(kind, field.metadata)


def _bounds(kind: Kind | None, metadata: Sequence[Any]) -> str:
    """``", at least 1mb and at most 1gb"``, or nothing."""
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    found = [
        f"{word} {show(kind, getattr(each, name))}"
        for each in metadata
        for name, word in words.items()
        if getattr(each, name, None) is not None
    ]
    return ", " + " and ".join(found) if found else ""
