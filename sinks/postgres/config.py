# SPDX-License-Identifier: MIT
"""What the PostgreSQL archive can be told."""

from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from bus.config import AgentConfig
from bus.names import check_pattern
from sinks.postgres.address import Address
from sinks.postgres.retention import DEFAULT_KEEP, keep_ns
from sinks.postgres.shards import Shard


class PostgresConfig(AgentConfig, frozen=True, kw_only=True):
    """What the PostgreSQL archive can be told. The password is no part of it, so that nobody can show it."""

    # Who may push a configuration over the bus must not choose where the password is sent to.
    local_only: ClassVar[frozenset[str]] = frozenset({"host", "port", "user", "database"})

    host: Annotated[
        str,
        Meta(
            description="where the server is: a name, or the folder of its socket; else POSTGRES_HOST, else as psql "
            "finds it. The password: POSTGRES_PASSWORD, or ~/.pgpass"
        ),
    ] = ""
    port: Annotated[int, Meta(ge=0, le=65535, description="its port; 0: POSTGRES_PORT, else as psql finds it")] = 0
    user: Annotated[str, Meta(description="who asks; else POSTGRES_USER, else as psql finds it")] = ""
    database: Annotated[str, Meta(description="the database; else POSTGRES_DB, else as psql finds it")] = ""
    metrics: Annotated[list[str], Meta(min_length=1, description="names and patterns of the metrics to store")] = (
        msgspec.field(default_factory=lambda: ["#"])
    )
    live_period: Annotated[
        float, Meta(ge=0, le=3600, description="seconds between updates of the newest values, for dashboards; 0: none")
    ] = 5.0
    persist_period: Annotated[
        float, Meta(ge=0, le=600, description="store, and acknowledge, at the latest after so many seconds")
    ] = 30.0
    batch_points: Annotated[
        int, Meta(ge=1, le=1_000_000, description="store at the latest when so many points have come in")
    ] = 50_000
    keep: Annotated[
        dict[str, str],
        Meta(
            description="how long each tier (raw, 1m, 10m, 1h, 1d) is kept: raw=7d 1m=1y ...; what is not "
            "mentioned for ever. Whole days go"
        ),
    ] = msgspec.field(default_factory=lambda: dict(DEFAULT_KEEP))
    queue: Annotated[
        str,
        Meta(
            pattern=r"^([A-Za-z0-9_.-]{1,190})?$",
            description="a queue that several sinks share, each taking a part of what comes; default: one of its own",
        ),
    ] = ""
    shard: Annotated[
        str, Meta(description="NUMBER/COUNT: store only that part of all metrics, chosen by a hash of their names")
    ] = ""

    def __post_init__(self) -> None:
        """Checks the patterns, the spans and the shard. Raises ValueError."""
        keep_ns(self.keep)
        for pattern in self.metrics:
            check_pattern(pattern)
        if self.shard:
            Shard.parse(self.shard)
            if self.queue:
                raise ValueError(
                    "queue and shard do not go together: what one sink takes from a shared queue, no other one sees"
                )

    @property
    def address(self) -> Address:
        """Where the database is. Raises ConfigError for an environment that makes no sense."""
        return Address.from_options(host=self.host, port=self.port, user=self.user, database=self.database)
