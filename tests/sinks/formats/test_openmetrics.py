# SPDX-License-Identifier: MIT
"""What we write as OpenMetrics is taken by the parser of prometheus-client, which is strict."""

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from bus.chunk import Chunk
from bus.formats import Extras
from tests.sinks.formats.copies import ALL, written
from tests.sinks.formats.test_round_trip import names, values


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names, st.lists(values, min_size=1, max_size=5), max_size=8), st.text(max_size=20))
def test_the_parser_of_others_finds_every_point(columns, description):
    start = 1_795_255_200 * 10**9 + 1
    chunks = [
        Chunk(name, array("q", range(start, start + len(column))), array("d", column))
        for name, column in columns.items()
    ]
    about = {name: {"unit": "W", "description": description} for name in columns}
    text = written(ALL["prometheus"], chunks, Extras(metadata=about)).decode()
    found: dict[str, list[tuple[int, str]]] = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge"
        for sample in family.samples:
            time = sample.timestamp.sec * 10**9 + sample.timestamp.nsec
            found.setdefault(sample.labels["metric"], []).append((time, float(sample.value).hex()))
    assert found == {
        chunk.metric: [(time, value.hex()) for time, value in zip(chunk.times, chunk.values, strict=True)]
        for chunk in chunks
    }
