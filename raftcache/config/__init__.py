"""Settings: one declaration each, and everything else made from it.

A setting is a field of ``Settings``. Its flag (``--max-memory``), its environment variable
(``RAFTCACHE_MAX_MEMORY``), its TOML key (``max_memory``), its line in ``--help`` and in
``docs/configuration.md``, and the message that refuses a wrong value all come from that one field.

``Settings(...)`` takes exactly what it is given. ``load`` is what a process starts with: flags,
then environment, then TOML file, then defaults. Whatever is wrong is collected into one
``SettingsError``, a readable line for each problem; nothing is silently ignored.
"""

from raftcache.config.kinds import Member, split_address
from raftcache.config.load import SettingsError, load
from raftcache.config.settings import Settings

__all__ = ["Member", "Settings", "SettingsError", "load", "split_address"]
