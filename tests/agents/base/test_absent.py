# SPDX-License-Identifier: MIT
"""A family that finds nothing says so once, and looks again now and then."""

import logging

import pytest

from agents.base.absent import LOOK_AGAIN_S, Absence, NothingFound
from agents.host import HostConfig, Reading
from bus.errors import HostbusError
from tests.agents.toy import Sampled, ToySource, second

NOTHING = "no sensors in /sys/class/hwmon"


@pytest.fixture
def absence(caplog) -> Absence:
    caplog.set_level(logging.INFO)
    return Absence("source-x")


def test_there_is_something_until_nothing_was_found(absence: Absence) -> None:
    assert absence.reason == ""
    assert absence.is_over(second(0))
    absence.end()
    assert absence.is_over(second(0))


def test_after_nothing_was_found_it_is_looked_for_again_a_minute_later(absence: Absence) -> None:
    absence.begin(second(0), NOTHING)
    looks = [at for at in (0.0, 1.0, 30.0, 59.999, 60.0, 61.0) if absence.is_over(second(at))]
    assert (LOOK_AGAIN_S, looks) == (60.0, [60.0, 61.0])
    absence.begin(second(60), NOTHING)
    assert not absence.is_over(second(119))
    assert absence.is_over(second(120))


def test_a_clock_that_is_set_back_does_not_put_the_next_look_off(absence: Absence) -> None:
    absence.begin(second(0), NOTHING)
    assert absence.is_over(second(-3600))
    absence.begin(second(-3600), NOTHING)
    assert not absence.is_over(second(-3599))
    assert absence.is_over(second(-3540))


def test_a_reason_is_said_once_and_so_is_another_and_the_end(absence: Absence, caplog) -> None:
    for at in (0, 60, 120):
        absence.begin(second(at), NOTHING)
    said = f"source-x: nothing to measure: {NOTHING}; looking again every 60 s"
    assert caplog.messages == [said]
    absence.begin(second(180), "no such folder")
    assert caplog.messages[1:] == ["source-x: nothing to measure: no such folder; looking again every 60 s"]
    assert absence.reason == "no such folder"
    absence.end()
    absence.end()
    assert caplog.messages[2:] == ["source-x: there is something to measure now"]
    assert (absence.reason, absence.is_over(second(181))) == ("", True)
    absence.begin(second(182), NOTHING)
    assert caplog.messages[3:] == [said]
    assert {record.levelno for record in caplog.records} == {logging.INFO}


def test_it_may_be_told_to_look_now(absence: Absence, caplog) -> None:
    absence.begin(second(0), NOTHING)
    absence.look_now()
    assert (absence.reason, absence.is_over(second(1))) == (NOTHING, True)
    absence.begin(second(1), NOTHING)
    assert not absence.is_over(second(2))
    assert len(caplog.messages) == 1


def test_that_there_is_nothing_is_an_error_of_ours() -> None:
    assert issubclass(NothingFound, HostbusError)


class GoneSource(ToySource):
    """Its device comes and goes."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.looks = 0
        self.is_there = False

    def read(self) -> Reading:
        self.looks += 1
        if not self.is_there:
            raise NothingFound(NOTHING)
        return {"plain": 1.0}


async def test_a_family_without_its_device_looks_once_a_minute_and_fails_not(host, monkeypatch, caplog) -> None:
    caplog.set_level(logging.INFO)
    source = host.source(GoneSource)
    sampled = Sampled(source, monkeypatch)
    for at in range(125):
        source.tick = second(at)
        await source.update()
    assert (source.looks, sampled.points) == (3, [])
    assert source.vital_signs()["nothingFound"] == NOTHING
    source.is_there = True
    for at in range(125, 185):
        source.tick = second(at)
        await source.update()
    assert source.looks == 3 + 5
    assert [time for time, _ in sampled.points] == [second(at) for at in range(180, 185)]
    assert "nothingFound" not in source.vital_signs()
    assert [message.partition(": ")[2][:20] for message in caplog.messages] == [
        "nothing to measure: ",
        "there is something t",
    ]
    await source.teardown()


async def test_a_new_configuration_makes_it_look_at_once(host, monkeypatch) -> None:
    source = host.source(GoneSource)
    Sampled(source, monkeypatch)
    source.tick = second(0)
    await source.update()
    await source.reconfigure(HostConfig.load({"prefix": "web1"}))
    source.tick = second(1)
    await source.update()
    assert source.looks == 2
    await source.teardown()


async def test_a_family_that_waits_for_others_may_find_nothing_too(host, monkeypatch) -> None:
    class Waiting(ToySource):
        async def measure(self) -> None:
            raise NothingFound("no server")

    source = host.source(Waiting)
    sampled = Sampled(source, monkeypatch)
    source.tick = second(0)
    await source.update()
    assert (source.absence.reason, sampled.points) == ("no server", [])
