# SPDX-License-Identifier: MIT
"""What is written is read back exactly, in every format."""

import re
import tempfile
from array import array
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from bus.archive import Event, MissingFrames
from bus.chunk import MAX_NS, Chunk
from bus.formats import Extras
from tests.sinks.formats.copies import ALL, exactly, extras_of, points_of, read_all, written

names = st.from_regex(re.compile(r"[A-Za-z0-9_-]{1,6}(\.[A-Za-z0-9_-]{1,6}){0,3}"), fullmatch=True)
times = st.integers(-MAX_NS - 1, MAX_NS)
values = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True) | st.sampled_from([0.0, -0.0, 5e-324])
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
objects = st.dictionaries(texts, st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts, max_size=3)


@st.composite
def chunks(draw):
    columns = draw(st.dictionaries(names, st.dictionaries(times, values, min_size=1, max_size=20), max_size=5))
    return [
        Chunk(name, array("q", sorted(points)), array("d", [points[time] for time in sorted(points)]))
        for name, points in columns.items()
    ]


events = st.builds(
    Event,
    time=times,
    label=texts,
    end=st.none() | times,
    source=texts,
    host=texts,
    color=texts,
    dash=texts,
    metadata=objects,
)
counts = st.integers(0, MAX_NS)
missing = st.builds(
    MissingFrames, source=texts, key=texts, epoch=counts, first=counts, last=counts, noticed=st.integers(0, MAX_NS)
)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kept=chunks())
async def test_points_metadata_events_and_gaps_come_back_exactly(data, kept):
    name = data.draw(st.sampled_from(sorted(ALL)))
    form = ALL[name]
    about = {chunk.metric: data.draw(objects.filter(bool)) for chunk in kept}
    extras = Extras(
        metadata=about, events=data.draw(st.lists(events, max_size=3)), missing=data.draw(st.lists(missing, max_size=3))
    )
    content = written(form, kept, extras, stop_every=data.draw(st.integers(0, 2)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file" + form.suffixes[0])
        path.write_bytes(content)
        batches = await read_all(form, path)
    assert points_of(batches) == {chunk.metric: exactly(chunk) for chunk in kept}
    found = extras_of(batches)
    for part in ("metadata", "events", "missing"):
        assert getattr(found, part) == (getattr(extras, part) if part in form.carries else type(getattr(found, part))())


async def test_reading_goes_on_from_every_position(form, tmp_path, monkeypatch):
    for module, constant, size in (
        ("files", "BLOCK_BYTES", 700),
        ("elements", "READ_BYTES", 900),
        ("parquet", "BATCH_POINTS", 17),
        ("parquet", "ROW_GROUP_POINTS", 40),
    ):
        monkeypatch.setattr(f"sinks.formats.{module}.{constant}", size)
    kept = [
        Chunk(f"web{n}.x.y", array("q", range(n, 1000, 25)), array("d", [v / 7 for v in range(n, 1000, 25)]))
        for n in range(5)
    ]
    extras = Extras(
        metadata={chunk.metric: {"unit": "W", "description": "é" * 40} for chunk in kept},
        events=[Event(time=n, label=f'"}}],{{[ {n}\\', metadata={"a": {"b": []}}) for n in range(20)],
    )
    path = tmp_path / "file"
    path.write_bytes(written(form, kept, extras, stop_every=2))
    whole = await read_all(form, path)
    assert len(whole) > 4
    assert points_of(whole) == {chunk.metric: exactly(chunk) for chunk in kept}
    assert [batch.read_bytes for batch in whole] == sorted(batch.read_bytes for batch in whole)
    for number, batch in enumerate(whole, 1):
        rest = await read_all(form, path, start=batch.position)
        assert points_of(rest) == points_of(whole[number:]), (number, batch.position)
        assert extras_of(rest) == extras_of(whole[number:])


async def test_points_of_many_metrics_in_the_order_of_time_are_read(tmp_path):
    lines = [f'{{"metric":"web1.m{n}","time":{tick},"value":{tick * n}}}\n' for tick in range(50) for n in range(20)]
    path = tmp_path / "ticks.jsonl"
    path.write_text("\n".join(lines))
    (batch,) = await read_all(ALL["jsonl"], path)
    assert points_of([batch]) == {
        f"web1.m{n}": [(tick, float(tick * n).hex()) for tick in range(50)] for n in range(20)
    }
    assert batch.locate("web1.m3", 2) == f"line {2 * (2 * 20 + 3) + 1}"
