"""Results of operations that no command expects, as error replies."""

from __future__ import annotations

from typing import Final

from raftcache.ops import Result, Status
from raftcache.resp.replies import RedisError

TOO_LONG: Final = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"

_ERRORS: Final = {
    Status.UNAVAILABLE: "CLUSTERDOWN No leader took the command in time; it was not applied",
    Status.UNKNOWN: "UNCERTAIN The outcome is not known: the command may have been applied, now or"
    " later",
    Status.STORAGE_FULL: "MISCONF The disks of the key's group are full; the command was not"
    " applied",
    Status.NOT_AN_INTEGER: "ERR value is not an integer or out of range",
    Status.OVERFLOW: "ERR increment or decrement would overflow",
    Status.TOO_LARGE: "OOM command not allowed when used memory > 'maxmemory'.",
    Status.INVALID: "ERR the node refused the operation; this is a bug",
    Status.ABORTED: "ERR aborted",
}


def checked(result: Result, **texts: str) -> Result:
    """The result, unless it is an error; ``texts`` override messages, by status."""
    status = result.status
    if status in _ERRORS:
        raise RedisError(texts.get(status.name, _ERRORS[status]))
    return result
