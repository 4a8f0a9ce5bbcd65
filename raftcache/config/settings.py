"""The declaration: every setting of a node, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from raftcache.config.kinds import (
    ADDRESS,
    Address,
    Duration,
    Identifier,
    Kind,
    LogFormat,
    LogLevel,
    Member,
    Members,
    Policy,
    Size,
    Whole,
    split_address,
)
from raftcache.config.rules import contradictions
from raftcache.limits import Limits
from raftcache.partition import MAX_GROUPS, VIRTUAL_NODES

ENV_PREFIX: Final = "RAFTCACHE_"

_DEFAULTS: Final = Limits()


def _setting(section: str, description: str, **more: Any) -> Any:
    """Declare a setting. ``shown_default`` describes a default that is computed."""
    extra = {"section": section, "shown_default": more.pop("shown_default", None)}
    extra["flag"] = more.pop("flag", True)
    return Field(description=description, json_schema_extra=extra, **more)


class Settings(BaseSettings):
    """Everything one node is told. Durations are seconds, sizes are bytes."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid"
    )

    node: Identifier = _setting("Cluster", "This node's id; one of the members.")
    members: Members = _setting(
        "Cluster",
        "Every node of the cluster, in the same order on all of them. In TOML, a [[members]] table"
        " with id, peer, http and, to serve Redis clients, resp for each.",
        min_length=1,
    )
    cluster: Identifier = _setting(
        "Cluster",
        "Name of the cluster. Nodes of other clusters are not talked to.",
        default="raftcache",
    )
    groups: Whole = _setting(
        "Cluster",
        "Raft groups that the keys are spread over. The same on every node.",
        default=4,
        ge=1,
        le=MAX_GROUPS,
    )
    replication: Whole = _setting(
        "Cluster",
        "Nodes that hold each group. Odd numbers serve best: 3 survives the loss of one node,"
        " 5 of two.",
        default_factory=lambda fields: min(3, len(fields.get("members", "123"))),
        shown_default="3, or the number of members when that is less",
        ge=1,
    )
    virtual_nodes: Whole = _setting(
        "Cluster",
        "Points of each group on the hash ring; more make the groups more equal in size. The"
        " same on every node.",
        default=VIRTUAL_NODES,
        ge=1,
        le=4096,
    )
    secret: str | None = _setting(
        "Cluster",
        "Key that the nodes prove to each other, at least 16 characters; the same on every node."
        " Needed unless all peer addresses are loopback. Has no flag, because command lines can"
        " be read by every user of a machine.",
        default=None,
        min_length=16,
        repr=False,
        flag=False,
    )

    data_dir: Annotated[Path | None, Kind("DIR", "a directory")] = _setting(
        "Storage",
        "Directory of the durable log. Either this or memory must be given.",
        default=None,
    )
    memory: Annotated[bool, Kind("", "true or false")] = _setting(
        "Storage",
        "Keep nothing on disk: the data survive as long as a majority of each group's nodes does.",
        default=False,
    )
    log_retention: Size = _setting(
        "Storage",
        "Log kept for replicas that lag, per node; one that needs more gets a snapshot.",
        default=64 * 1024**2,
        ge=1024**2,
    )

    max_memory: Size = _setting(
        "Cache",
        "Memory for entries and log on one node, shared by its groups; beyond it entries are"
        " evicted.",
        default=256 * 1024**2,
        ge=1024**2,
    )
    policy: Policy = _setting("Cache", "Which entry is evicted first.", default="lru")
    touch_interval: Duration = _setting(
        "Cache",
        "Longest time before keys that were read count as used, when no write carries the news.",
        default=0.2,
        gt=0,
    )
    session_ttl: Duration = _setting(
        "Cache",
        "How long the result of a write with an Idempotency-Key is remembered after its last use.",
        default=600.0,
        ge=1,
    )
    max_sessions: Whole = _setting(
        "Cache",
        "Idempotency keys remembered per group, in at most an eighth of its memory; beyond that the"
        " oldest are forgotten.",
        default=100_000,
        ge=1,
    )

    heartbeat_interval: Duration = _setting(
        "Raft", "How often a leader shows that it lives.", default=0.05, gt=0
    )
    election_timeout: Duration = _setting(
        "Raft",
        "Least silence of a leader before the others elect a new one; each waits a random time"
        " between this and twice this.",
        default=0.3,
        gt=0,
    )
    lease_duration: Duration = _setting(
        "Raft",
        "How long after a majority heard from it a leader answers lease reads on its own.",
        default=0.2,
        gt=0,
    )
    max_clock_drift: Annotated[float, Kind("FRACTION", "a fraction such as 0.05")] = _setting(
        "Raft",
        "How much faster one node's clock may run than another's (lease reads, expiry).",
        default=0.05,
        ge=0,
        lt=1,
    )
    max_in_flight: Whole = _setting(
        "Raft", "Batches a leader has under way in one group.", default=3, ge=1, le=1000
    )

    peer_bind: Annotated[Address | None, ADDRESS] = _setting(
        "Network",
        "Listen here for the other nodes.",
        default=None,
        shown_default="this member's peer address",
    )
    http_bind: Annotated[Address | None, ADDRESS] = _setting(
        "Network",
        "Listen here for clients.",
        default=None,
        shown_default="this member's http address",
    )
    resp_bind: Annotated[Address | None, ADDRESS] = _setting(
        "Network",
        "Listen here for Redis clients.",
        default=None,
        shown_default="this member's resp address, if it has one",
    )
    max_clients: Whole = _setting(
        "Network",
        "Redis clients connected to this node at a time; fewer if too few files may be open.",
        default=10_000,
        ge=1,
    )
    readonly_staleness: Duration = _setting(
        "Network",
        "How old the state may be that a Redis client reads after READONLY.",
        default=1.0,
        ge=0,
    )
    max_frame: Size = _setting(
        "Network",
        "Largest message between nodes; a peer that sends more is cut off.",
        default=64 * 1024**2,
        le=2**31,
    )
    shutdown_grace: Duration = _setting(
        "Network",
        "How long a stopping node may take to hand over its groups and finish its requests.",
        default=10.0,
        ge=0,
    )

    max_key_bytes: Size = _setting(
        "Limits", "Longest key.", default=_DEFAULTS.max_key_bytes, ge=1, le=65536
    )
    max_value_bytes: Size = _setting(
        "Limits", "Largest value.", default=_DEFAULTS.max_value_bytes, ge=1, le=2**30
    )
    max_batch_operations: Whole = _setting(
        "Limits",
        "Most operations in one batch request.",
        default=_DEFAULTS.max_batch_operations,
        ge=1,
    )
    max_batch_bytes: Size = _setting(
        "Limits",
        "Largest body of a batch request.",
        default=_DEFAULTS.max_batch_bytes,
        ge=1,
        le=2**30,
    )
    max_idempotency_key_bytes: Size = _setting(
        "Limits",
        "Longest Idempotency-Key.",
        default=_DEFAULTS.max_idempotency_key_bytes,
        ge=1,
        le=4096,
    )
    default_timeout_s: Duration = _setting(
        "Limits",
        "Deadline of a request that names none.",
        default=_DEFAULTS.default_timeout_s,
        gt=0,
    )
    max_timeout_s: Duration = _setting(
        "Limits",
        "Longest deadline that a request may name.",
        default=_DEFAULTS.max_timeout_s,
        gt=0,
    )
    max_queued_operations: Whole = _setting(
        "Limits",
        "Operations under way on one node; more are refused with 503.",
        default=_DEFAULTS.max_queued_operations,
        ge=1,
    )
    max_queued_bytes: Size = _setting(
        "Limits",
        "Bytes of keys and values under way on one node; more are refused with 503.",
        default=_DEFAULTS.max_queued_bytes,
        ge=1,
    )

    log_level: LogLevel = _setting("Logging", "Least serious message shown.", default="info")
    log_format: LogFormat = _setting(
        "Logging",
        "How messages are written to standard error; auto is console on a terminal, else json.",
        default="auto",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
        problems = list(contradictions(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """``Settings(...)`` reads neither the environment nor files; ``load`` does."""
        return (init_settings,)

    @property
    def limits(self) -> Limits:
        """The limits that requests meet."""
        return Limits(**{name: getattr(self, name) for name in Limits.__struct_fields__})

    @property
    def me(self) -> Member:
        """This node's own entry among the members."""
        return next(member for member in self.members if member.id == self.node)

    @property
    def member_ids(self) -> tuple[str, ...]:
        """Ids of all members, in order."""
        return tuple(member.id for member in self.members)

    @property
    def peer_listen(self) -> tuple[str, int]:
        """Host and port to listen on for the other nodes."""
        return split_address(self.peer_bind or self.me.peer)

    @property
    def http_listen(self) -> tuple[str, int]:
        """Host and port to listen on for clients."""
        return split_address(self.http_bind or self.me.http)

    @property
    def resp_listen(self) -> tuple[str, int] | None:
        """Host and port to listen on for Redis clients."""
        address = self.resp_bind or self.me.resp
        return None if address is None else split_address(address)
