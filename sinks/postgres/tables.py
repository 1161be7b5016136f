# SPDX-License-Identifier: MIT
"""The tables and views of an archive, by version. Times are ns since 1970-01-01T00:00:00Z.

A point is identified by its metric and time, which needs an index. 16 bytes of key are the most that PostgreSQL
packs tightly where each metric's times increase: 33 bytes a point, where a key of 24 takes 71. Measured beside it:
without that index, with BRIN on the time, it stores up to twice as many points per second; but then nothing keeps
two sinks from storing the same point twice.
"""

from typing import NamedTuple

from bus.aggregates import TIERS_NS
from bus.archive import MIN_NS


class Tier(NamedTuple):
    """A resolution: `span` in ns, 0 for the points themselves."""

    id: int
    name: str
    span: int


RAW = Tier(0, "raw", 0)
ROLLUPS: tuple[Tier, ...] = tuple(
    Tier(number, name, span) for number, (name, span) in enumerate(TIERS_NS.items(), 1) if name != "10s"
)
"""The aggregates that are kept, from fine to coarse; numbered as in the SQLite archive, which has a finer one."""
FINEST = ROLLUPS[0]

POINT = (
    "CREATE TABLE hostbus.point (metric integer NOT NULL, time bigint NOT NULL, value float8, "
    "PRIMARY KEY (metric, time))"
)
"""Made in one of several ways (partitions.py). Without a value: measured, and no answer (NaN)."""

_TIERS = ", ".join(f"({tier.id}, '{tier.name}', {tier.span}, {MIN_NS})" for tier in (RAW, *ROLLUPS))

_TABLES = f"""
    -- metadata: a JSON object, NULL while nobody has told it. hold: how long a point speaks for, in ns
    CREATE TABLE hostbus.metric (
        id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        name text COLLATE "C" NOT NULL UNIQUE,
        metadata text,
        hold bigint
    );
    CREATE TABLE hostbus.latest (metric integer PRIMARY KEY, time bigint NOT NULL, value float8) WITH (fillfactor = 50);
    CREATE TABLE hostbus.rollup (
        tier smallint NOT NULL, metric integer NOT NULL, time bigint NOT NULL,
        count bigint NOT NULL, sum float8, min float8, max float8, first float8, last float8,
        integral float8, covered float8 NOT NULL,
        PRIMARY KEY (tier, metric, time)
    ) WITH (fillfactor = 90);
    CREATE INDEX rollup_time ON hostbus.rollup USING brin (time);
    -- What of a tier came before gone_to may have been removed.
    CREATE TABLE hostbus.tier (
        id smallint PRIMARY KEY, name text NOT NULL, span bigint NOT NULL, gone_to bigint NOT NULL
    );
    INSERT INTO hostbus.tier VALUES {_TIERS};
    -- Something has changed in this tier at first <= time < last; the next coarser one has not learned of it.
    CREATE TABLE hostbus.unformed (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        tier smallint NOT NULL, metrics integer[] NOT NULL, first bigint NOT NULL, last bigint NOT NULL,
        noticed timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    -- Frames first..last of a source's routing key, of the run that began at epoch, never came.
    CREATE TABLE hostbus.gap (
        source text NOT NULL, key text NOT NULL, epoch bigint NOT NULL,
        first bigint NOT NULL, last bigint NOT NULL, noticed bigint NOT NULL,
        PRIMARY KEY (source, key, epoch, first)
    );
    CREATE TABLE hostbus.event (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        time bigint NOT NULL, "end" bigint, label text NOT NULL, source text NOT NULL, host text NOT NULL,
        color text NOT NULL, dash text NOT NULL, metadata text NOT NULL, digest bytea NOT NULL UNIQUE
    );
    CREATE INDEX event_time ON hostbus.event (time);
"""

# For people and dashboards. PostgreSQL's times end with the microsecond; column ns has all of it, and is what the
# index knows: WHERE metric = '...' AND ns >= hostbus.ns(now() - interval '1 hour').
_VIEWS = """
    CREATE FUNCTION hostbus.ns(timestamptz) RETURNS bigint IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql AS
        'SELECT (extract(epoch FROM $1) * 1000000000)::bigint';
    CREATE FUNCTION hostbus.time_of(bigint) RETURNS timestamptz IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql AS
        $$SELECT timestamptz '1970-01-01 00:00:00+00' + ($1 / 1000) * interval '1 microsecond'$$;
    CREATE VIEW hostbus.points AS
        SELECT metric.name AS metric, hostbus.time_of(point.time) AS time, point.value, point.time AS ns
        FROM hostbus.point JOIN hostbus.metric ON metric.id = point.metric;
    CREATE FUNCTION hostbus.points(metric text, since timestamptz, until timestamptz DEFAULT now())
        RETURNS TABLE ("time" timestamptz, value float8) STABLE PARALLEL SAFE LANGUAGE sql AS
        'SELECT hostbus.time_of(p.time), p.value FROM hostbus.point p
         WHERE p.metric = (SELECT m.id FROM hostbus.metric m WHERE m.name = $1)
         AND p.time >= hostbus.ns($2) AND p.time < hostbus.ns($3) ORDER BY p.time';
    CREATE VIEW hostbus.newest AS
        SELECT metric.name AS metric, hostbus.time_of(latest.time) AS time, latest.value, latest.time AS ns
        FROM hostbus.latest JOIN hostbus.metric ON metric.id = latest.metric;
    CREATE VIEW hostbus.events AS
        SELECT id, hostbus.time_of(time) AS time, hostbus.time_of("end") AS "end", label, source, host, metadata
        FROM hostbus.event;
"""

_ROLLUP_VIEW = """
    CREATE VIEW hostbus.rollup_{name} AS
        SELECT metric.name AS metric, hostbus.time_of(rollup.time) AS time, rollup.count, rollup.sum, rollup.min,
            rollup.max, rollup.first, rollup.last, rollup.integral, rollup.covered,
            CASE WHEN rollup.covered > 0 THEN rollup.integral / rollup.covered ELSE rollup.sum / rollup.count END
                AS mean,
            rollup.time AS ns
        FROM hostbus.rollup JOIN hostbus.metric ON metric.id = rollup.metric WHERE rollup.tier = {id};
"""

MIGRATIONS: tuple[str, ...] = (
    # 1. One that was released is never changed.
    _TABLES + _VIEWS + "".join(_ROLLUP_VIEW.format(name=tier.name, id=tier.id) for tier in ROLLUPS),
)
