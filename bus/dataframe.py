# SPDX-License-Identifier: MIT
"""History as a pandas DataFrame. pandas comes with the extra ``hostbus[pandas]``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from bus.archive import History, read_points
from bus.errors import HostbusError

if TYPE_CHECKING:
    from pandas import DataFrame

Statistic = Literal["mean", "minimum", "maximum", "sum", "count", "first", "last", "integral", "covered"]
"""A field of `Aggregate`."""


async def to_dataframe(
    history: History,
    metrics: str | Iterable[str],
    start_ns: int,
    end_ns: int,
    every_ns: int | None = None,
    statistic: Statistic = "mean",
) -> DataFrame:
    """A column for each metric; the index is the time, in UTC.

    Without `every_ns` there is a row for each time at which some metric has a point; with it a row for each
    bucket, which begins at that time. What a metric does not have is NaN. Raises HostbusError if there is no
    pandas.
    """
    try:
        import pandas as pd
    except ImportError:
        raise HostbusError("to_pandas needs pandas, which is not installed: pip install 'hostbus[pandas]'") from None
    patterns = [metrics] if isinstance(metrics, str) else list(metrics)
    names = sorted({name for pattern in patterns for name in await history.metrics(pattern)})
    columns = {}
    for name in names:
        if every_ns is None:
            chunk = await read_points(history, name, start_ns, end_ns)
            times, values = chunk.times, list(chunk.values)
        else:
            found = await history.aggregates(name, start_ns, end_ns, every_ns)
            times, values = found.times, [getattr(row, statistic) for row in found.rows()]
        columns[name] = pd.Series(values, index=pd.to_datetime(list(times), unit="ns", utc=True), dtype="float64")
    table = pd.DataFrame(columns, columns=names)
    table.index = pd.DatetimeIndex(table.index, tz="UTC", name="time")
    return table
