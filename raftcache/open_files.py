"""How many files and connections a process may have open at a time.

Most systems start programs with 1,024 and allow them more when they ask (the soft and the hard
RLIMIT_NOFILE). A node that did not ask would take a thousand clients and then refuse its peers too.
"""

from __future__ import annotations

import resource


def allow_open_files(count: int) -> int:
    """Ask for as many as ``count``, for this process and those that it starts. How many are
    allowed now: less than ``count`` where the system is stricter."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return count
    if soft < count:
        soft = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft
