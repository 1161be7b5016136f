# SPDX-License-Identifier: MIT
import pytest

from agents.base.absent import NothingFound
from agents.gpu.source import GpuSource
from agents.metric import MetricTable
from agents.remote.parsers.nvidia_smi import FIELDS, NvidiaSmiParser, parse_gpu
from tests.agents.remote.shell import FixtureShell

DATACENTRE = (
    "0, 45, 12, 81559, 1024, 79920, 38, 52, 121.44, 700.00, 1980, 1980, 2619, 1545, [N/A], P0, 5, 16, 0, 1, 2, 3"
)
WORKSTATION = (
    "1, 100, 60, 24564, 24000, 564, 71, N/A, 449.70, 450.00, 2520, 2520, 10501, 1950, 66, P2, 4, 8, "
    "[N/A], [N/A], [N/A], [N/A]"
)
OLD = (
    "0, [Not Supported], [Not Supported], 981, 206, 775, 45, N/A, [Not Supported], [Not Supported], "
    "[Not Supported], [Not Supported], [Not Supported], [Not Supported], 40, P8, [Not Supported], [Not Supported], "
    "[Not Supported], [Not Supported], [Not Supported], [Not Supported]"
)
MIB = 1 << 20


@pytest.fixture
def shell(host) -> FixtureShell:
    return FixtureShell(host)


def test_values_are_in_our_units(shell) -> None:
    assert shell.parse(NvidiaSmiParser(), DATACENTRE + "\n") == {
        "gpu0.utilization": 45.0,
        "gpu0.memory_utilization": 12.0,
        "gpu0.memory.total": 81559 * MIB,
        "gpu0.memory.used": 1024 * MIB,
        "gpu0.memory.free": 79920 * MIB,
        "gpu0.memory.percent": pytest.approx(100 * 1024 / 80944),
        "gpu0.temperature": 38.0,
        "gpu0.memory_temperature": 52.0,
        "gpu0.power": 121.44,
        "gpu0.power_limit": 700.0,
        "gpu0.clock.graphics": 1.98e9,
        "gpu0.clock.sm": 1.98e9,
        "gpu0.clock.memory": 2.619e9,
        "gpu0.clock.video": 1.545e9,
        "gpu0.performance_state": 0.0,
        "gpu0.pcie.generation": 5.0,
        "gpu0.pcie.width": 16.0,
        "gpu0.ecc.corrected": 0.0,
        "gpu0.ecc.uncorrected": 1.0,
        "gpu0.ecc.lifetime.corrected": 2.0,
        "gpu0.ecc.lifetime.uncorrected": 3.0,
    }


def test_names_and_metadata_are_those_of_the_gpu_family(shell) -> None:
    parser = NvidiaSmiParser()
    found = shell.parse(parser, f"{DATACENTRE}\n{WORKSTATION}\n")
    table, family = MetricTable(parser.table()), MetricTable(GpuSource.metrics)
    assert {table.find(name) for name in found} == set(parser.metrics)
    assert [name for name in found if table.find(name) != family.find(name)] == []
    assert parser.every_s == 10.0


def test_a_host_may_have_more_than_ten_gpus() -> None:
    assert parse_gpu("12" + DATACENTRE[1:])[0] == "gpu12"


def test_what_a_gpu_does_not_support_is_left_out(shell) -> None:
    assert shell.parse(NvidiaSmiParser(), OLD) == {
        "gpu0.memory.total": 981 * MIB,
        "gpu0.memory.used": 206 * MIB,
        "gpu0.memory.free": 775 * MIB,
        "gpu0.memory.percent": pytest.approx(100 * 206 / 981),
        "gpu0.temperature": 45.0,
        "gpu0.fan": 40.0,
        "gpu0.performance_state": 8.0,
    }


@pytest.mark.parametrize(
    "text",
    [
        "[N/A]",
        "N/A",
        "[Not Supported]",
        "ERR!",
        "[GPU is lost]",
        "[Unknown Error]",
        "[GPU requires reset]",
        "[Insufficient Permissions]",
        "",
        "nan",
        "inf",
        "-1",
    ],
)
def test_what_is_no_value_is_left_out(text: str) -> None:
    word, values = parse_gpu(f"7, {', '.join([text] * len(FIELDS))}")
    assert (word, values) == ("gpu7", {})


def test_a_gpu_that_is_lost_costs_only_itself_and_one_line_in_the_log(shell, caplog) -> None:
    parser = NvidiaSmiParser()
    lost = "Unable to determine the device handle for GPU 0000:01:00.0: GPU is lost.  Reboot the system"
    for _ in range(3):
        reading = shell.parse(parser, f"{lost}\n{WORKSTATION}\n")
        assert {name.partition(".")[0] for name in reading} == {"gpu1"}
    assert len(caplog.records) == 1
    assert "GPU is lost" in caplog.records[0].message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No devices were found",
        'Field "x" is not a valid field to query.',
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
    ],
)
def test_without_a_gpu_there_is_nothing_to_measure(text: str, shell) -> None:
    with pytest.raises(NothingFound, match="nvidia-smi tells of no GPU; it says"):
        shell.parse(NvidiaSmiParser(), text)


def test_the_command_asks_for_each_field_in_turn(shell) -> None:
    shell.program("nvidia-smi", f'test "$1" = --query-gpu=index,{",".join(FIELDS)} && echo "{DATACENTRE}"')
    assert shell.ask(NvidiaSmiParser())["gpu0.utilization"] == 45.0


@pytest.mark.parametrize("line", ["0, 1, 2", DATACENTRE.replace("0", "x", 1), DATACENTRE + ", 1", "-" + DATACENTRE])
def test_a_line_of_other_columns_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match="no values"):
        parse_gpu(line)
