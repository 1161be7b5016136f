# SPDX-License-Identifier: MIT
"""The readings of GPUs. What breaks is in test_gpu_faults.py and test_gpu_fleet.py."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest

from agents.gpu.readings import throttle_values
from agents.gpu.source import GpuSource
from agents.metric import MetricTable
from bus.errors import ConfigError
from bus.timestamp import Timestamp
from tests.agents.gpu.gpu_support import add_process, installed, of, words
from tests.agents.gpu.nvml_double import MIB, GpuDouble, Instance, NvmlDouble, Process

GOLDEN = Path(__file__).parents[1] / "fixtures" / "names" / "gpu.txt"


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[NvmlDouble]:
    yield from installed(monkeypatch)


def test_the_names_are_as_ever_and_all_described(host, nvml) -> None:
    plain, split = GpuDouble("GPU-1"), GpuDouble("GPU-2", bus=0x5E, instances={1: Instance("MIG-1", "A100 MIG 1g.5gb")})
    plain.compute = [Process(501, 100 * MIB)]
    add_process(host.proc, 501, "python3")
    nvml.gpus = [plain, split]
    source = host.source(GpuSource)
    names = set(host.read(source)) | set(host.read(source))
    assert sorted(names) == GOLDEN.read_text().split()
    table = MetricTable(GpuSource.metrics)
    assert [name for name in names if source.describe(name) is None] == []
    assert [metric.name for metric in GpuSource.metrics if metric not in {table.find(name) for name in names}] == []


def test_what_a_gpu_says_in_our_units(host, nvml) -> None:
    nvml.gpus = [GpuDouble("GPU-1")]
    source = host.source(GpuSource)
    host.read(source)
    nvml.gpus[0].fields |= {197: (3, 5_000 + 400), 198: (3, 7_000 + 600)}
    reading = of(host.read(source, after_s=2.0), "gpu0")
    assert {name: value for name, value in reading.items() if not name.startswith("throttle")} == {
        "responds": 1,
        "utilization": 87,
        "memory_utilization": 43,
        "encoder": 5,
        "decoder": 6,
        "memory.total": 40960 * MIB,
        "memory.used": 10000 * MIB,
        "memory.free": 30360 * MIB,
        "memory.reserved": 600 * MIB,
        "memory.percent": pytest.approx(100 * 10000 / 40360),
        "temperature": 61,
        "memory_temperature": 71,
        "power": 251.5,
        "energy": 123456.789,
        "clock.graphics": 1.41e9,
        "clock.sm": 1.41e9,
        "clock.memory": 1.215e9,
        "clock.video": 1.275e9,
        "fan": 42,
        "performance_state": 0,
        "pcie.tx_bytes": 200,
        "pcie.rx_bytes": 300,
    }


def test_what_changes_slowly_comes_every_ten_seconds(host, nvml) -> None:
    nvml.gpus = [GpuDouble("GPU-1")]
    source = host.source(GpuSource)
    slow = {
        "power_limit": 400.0,
        "pcie.generation": 4,
        "pcie.width": 16,
        "ecc.corrected": 3,
        "ecc.uncorrected": 0,
        "ecc.lifetime.corrected": 17,
        "ecc.lifetime.uncorrected": 1,
        "remapped_rows.corrected": 2,
        "remapped_rows.uncorrected": 1,
        "remapped_rows.pending": 0,
        "remapped_rows.failed": 0,
        "processes": 0,
    }
    host.now_s = 2000.0
    came = [of(host.read(source), "gpu0") for _ in range(20)]  # from second 2001 on
    assert [second for second, reading in enumerate(came, 2001) if "processes" in reading] == [2001, 2010, 2020]
    assert {name: came[9][name] for name in slow} == slow
    assert not slow.keys() & came[5].keys()
    described = {metric.name for metric in GpuSource.metrics if metric.every_s}
    assert {f"{{gpu}}.{name}" for name in slow} == described - {"{gpu}.process.{group}.memory"}


def test_the_metadata_says_which_gpu_it_is_and_what_its_limits_are(host, nvml) -> None:
    nvml.gpus = [GpuDouble("GPU-1"), GpuDouble("GPU-2", bus=0x5E, name="Tesla T4")]
    source = host.source(GpuSource)
    host.read(source)
    who = {"model": "Tesla T4", "uuid": "GPU-2", "pci": "00000000:5E:00.0", "serial": "1320694"}
    for name, more in {
        "utilization": {},
        "temperature": {"slowdown": 89, "shutdown": 92},
        "memory_temperature": {"high": 95},
        "power_limit": {"lowest": 100.0, "highest": 400.0, "default": 400.0},
        "clock.sm": {"highest": 2e9},
        "pcie.generation": {"highest": 5},
        "pcie.width": {"highest": 16},
    }.items():
        metric = source.describe(f"gpu1.{name}")
        assert metric is not None
        assert metric.details == {**who, **more}
    assert source.describe("gpu1.nonsense") is None


def test_processes_are_summed_by_name_and_zero_when_they_ended(host, nvml) -> None:
    gpu = GpuDouble("GPU-1")
    nvml.gpus = [gpu]
    for pid, name in {501: "python3", 502: "python3", 503: "my prog"}.items():
        add_process(host.proc, pid, name)
    gpu.compute = [Process(501, 100), Process(502, 30), Process(503, 7), Process(599, 4)]
    source = host.source(GpuSource)
    first = of(host.read(source), "gpu0")
    assert first["processes"] == 4
    assert of(first, "process") == {"python3.memory": 130, "my_prog.memory": 7, "other.memory": 4}
    gpu.compute = [Process(503, 9)]
    assert of(of(host.read(source, after_s=10), "gpu0"), "process") == {
        "python3.memory": 0,
        "my_prog.memory": 9,
        "other.memory": 0,
    }


def test_a_process_that_computes_and_draws_counts_once(host, nvml) -> None:
    gpu = GpuDouble("GPU-1", compute=[Process(501, 100)], graphics=[Process(501, 100), Process(502, 5)])
    nvml.gpus = [gpu]
    add_process(host.proc, 501, "game")
    reading = of(host.read(host.source(GpuSource)), "gpu0")
    assert reading["processes"] == 2
    assert of(reading, "process") == {"game.memory": 100, "other.memory": 5}


def test_memory_that_the_driver_does_not_tell_is_in_no_sum(host, nvml) -> None:
    gpu = GpuDouble("GPU-1", compute=[Process(501, 2**64 - 1), Process(502, 2**64 - 1), Process(503, 5)])
    nvml.gpus = [gpu]
    for pid, name in {501: "secret", 502: "mixed", 503: "mixed"}.items():
        add_process(host.proc, pid, name)
    source = host.source(GpuSource)
    assert of(of(host.read(source), "gpu0"), "process") == {"mixed.memory": 5}
    assert of(of(host.read(source, after_s=10), "gpu0"), "process") == {"mixed.memory": 5}
    gpu.compute = [Process(503, 2**64 - 1)]
    assert of(of(host.read(source, after_s=10), "gpu0"), "process") == {}


def test_memory_that_one_of_two_lists_tells_counts(host, nvml) -> None:
    unknown = 2**64 - 1
    gpu = GpuDouble("GPU-1", compute=[Process(501, unknown), Process(502, 20), Process(503, 0)])
    gpu.graphics = [Process(501, 100), Process(502, unknown)]
    nvml.gpus = [gpu]
    for pid, name in {501: "one", 502: "two", 503: "idle"}.items():
        add_process(host.proc, pid, name)
    reading = of(host.read(host.source(GpuSource)), "gpu0")
    assert of(reading, "process") == {"one.memory": 100, "two.memory": 20, "idle.memory": 0}


def test_a_process_in_two_instances_has_the_memory_of_both(host, nvml) -> None:
    gpu = GpuDouble("GPU-1", compute=[Process(501, 3, 7, 0), Process(501, 4, 8, 0)])
    gpu.errors["nvmlDeviceGetGraphicsRunningProcesses_v3"] = pynvml.NVML_ERROR_NOT_SUPPORTED  # as it is with MIG
    nvml.gpus = [gpu]
    add_process(host.proc, 501, "train")
    assert of(host.read(host.source(GpuSource)), "gpu0")["process.train.memory"] == 7


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        (0x0, set()),
        (0x1 | 0x100, set()),
        (0x2, {"setting"}),
        (0x4, {"power"}),
        (0x8 | 0x40, {"hw_slowdown", "hw_thermal"}),
        (0x8 | 0x80, {"hw_slowdown", "power_brake"}),
        (0x10 | 0x20, {"sync_boost", "thermal"}),
    ],
)
def test_bits_say_what_holds_the_clocks_down(bits: int, names: set[str]) -> None:
    values = throttle_values(bits)
    assert {name for name, value in values.items() if value} == {f"throttle.{name}" for name in names}
    assert len(values) == 7


async def test_groups_are_those_of_the_configuration(host, nvml) -> None:
    gpu = GpuDouble("GPU-1", compute=[Process(501, 1), Process(502, 2), Process(503, 4)])
    nvml.gpus = [gpu]
    for pid, name in {501: "python3.11", 502: "torchrun", 503: "blender"}.items():
        add_process(host.proc, pid, name)
    groups = [{"name": "train", "names": ["python*", "torchrun"]}, "ollama"]
    source = host.source(GpuSource, {"process_groups": groups})
    assert of(of(host.read(source), "gpu0"), "process") == {
        "train.memory": 3,
        "ollama.memory": 0,
        "other.memory": 4,
    }
    await source.reconfigure(GpuSource.Config.load({"prefix": "web1"}))
    assert of(of(host.read(source, after_s=10), "gpu0"), "process") == {
        "python3_11.memory": 1,
        "torchrun.memory": 2,
        "blender.memory": 4,
    }


async def test_groups_of_a_reading_under_way_are_forgotten_when_others_are_configured(host, nvml, monkeypatch) -> None:
    nvml.gpus = [GpuDouble("GPU-1", compute=[Process(501, 1)])]
    add_process(host.proc, 501, "python")
    source = host.source(GpuSource)
    asked, answer = threading.Event(), threading.Event()
    name_of = source._name_of

    def named(pid: int) -> str:
        asked.set()
        assert answer.wait(20)
        return name_of(pid)

    monkeypatch.setattr(source, "_name_of", named)
    reading = asyncio.get_running_loop().run_in_executor(None, host.read, source)
    assert await asyncio.to_thread(asked.wait, 20)
    await source.reconfigure(GpuSource.Config.load({"prefix": "web1", "process_groups": ["ollama"]}))
    answer.set()
    await reading
    values = of(of(host.read(source, after_s=10), "gpu0"), "process")
    assert values == {"ollama.memory": 0, "other.memory": 1}


@pytest.mark.parametrize(
    ("groups", "why"),
    [
        (["a b", "a_b"], "two groups of processes are called 'a_b'"),
        ([{"name": "a.b", "names": ["a"]}], "one word of letters"),
        ([{"name": "a", "names": []}], "names"),
    ],
)
def test_groups_that_cannot_be_are_refused(groups: list[object], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        GpuSource.Config.load({"process_groups": groups})


async def test_gpus_are_chosen_by_word_uuid_or_model(host, nvml) -> None:
    nvml.gpus = [GpuDouble("GPU-1"), GpuDouble("GPU-2", name="Tesla T4"), GpuDouble("GPU-3", name="Tesla T4")]
    source = host.source(GpuSource, {"include_gpus": ["Tesla*"], "exclude_gpus": ["GPU-3"]})
    assert {name.split(".")[0] for name in host.read(source)} == {"gpu1"}
    await source.reconfigure(GpuSource.Config.load({"prefix": "web1", "exclude_gpus": ["gpu1"]}))
    assert {name.split(".")[0] for name in host.read(source)} == {"gpu0", "gpu2"}
    nvml.gpus[1].present = False
    assert words(host.read(source, after_s=60)) == {"gpu0": 1, "gpu2": 1}  # though it is the second now
    nvml.gpus[2].present = False
    assert words(host.read(source, after_s=60)) == {"gpu0": 1, "gpu2": 0}


def test_a_gpu_that_is_left_out_by_its_word_is_never_opened(host, nvml) -> None:
    nvml.gpus = [GpuDouble("GPU-1"), GpuDouble("GPU-2")]
    host.read(host.source(GpuSource, {"exclude_gpus": ["gpu1"]}))
    assert nvml.calls["nvmlDeviceGetHandleByIndex_v2"] == 1


def test_mig_instances_have_their_memory_and_say_who_they_are(host, nvml) -> None:
    first = Instance("MIG-1", "A100 MIG 1g.5gb", used=1000, total=4000)
    gpu = GpuDouble("GPU-1", instances={0: first, 3: Instance("MIG-2", "A100 MIG 2g.10gb", used=5, total=10)})
    gpu.errors["nvmlDeviceGetUtilizationRates"] = pynvml.NVML_ERROR_NOT_SUPPORTED
    nvml.gpus = [gpu]
    source = host.source(GpuSource)
    reading = of(host.read(source), "gpu0")
    assert of(reading, "mig0") == {"memory.total": 4000, "memory.used": 1000, "memory.free": 3000, "memory.percent": 25}
    assert of(reading, "mig3")["memory.percent"] == 50
    assert not {name for name in reading if name.startswith("mig") and name[3] not in "03"}
    metric = source.describe("gpu0.mig3.memory.used")
    assert metric is not None
    assert metric.details["instance"] == "A100 MIG 2g.10gb"
    assert (metric.details["instance_uuid"], metric.details["uuid"]) == ("MIG-2", "GPU-1")
    assert (metric.details["gpu_instance"], metric.details["compute_instance"]) == (10, 0)


def test_mig_instances_are_made_and_destroyed_while_the_gpu_goes_on(host, nvml, caplog) -> None:
    gpu = GpuDouble("GPU-1", instances={0: Instance("MIG-1", "one")})
    nvml.gpus = [gpu]
    source = host.source(GpuSource)
    host.read(source)
    gpu.instances = {2: Instance("MIG-2", "two")}
    gone = of(host.read(source), "gpu0")
    assert "utilization" in gone
    assert not [name for name in gone if name.startswith("mig")]
    later = of(host.read(source, after_s=10), "gpu0")
    assert {name.split(".")[0] for name in later if name.startswith("mig")} == {"mig2"}
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_traffic_is_sampled_where_there_is_no_counter(host, nvml, caplog) -> None:
    caplog.set_level("INFO")
    nvml.gpus = [GpuDouble(f"GPU-{number}", fields={82: (1, 70)}) for number in range(8)]
    source = host.source(GpuSource, {"period": 3})  # has time for six samples in a reading
    came: list[list[str]] = []
    for _ in range(15):
        reading = host.read(source)
        came.append([name for name in sorted(reading) if name.endswith("rx_bytes")])
    first = next(index for index, names in enumerate(came) if names)
    names = [f"gpu{number}.pcie.rx_bytes" for number in range(8)]
    assert came[first : first + 3] == [names[:6], names[6:], []]
    assert came[first + 10 : first + 12] == [names[:6], names[6:]]
    metric = source.describe("gpu0.pcie.rx_bytes")
    assert metric is not None
    assert (metric.scope, metric.every_s, metric.details["sampled_s"]) == ("point", 10.0, 0.02)
    assert "pcie" not in caplog.text  # nothing is lacking


async def test_traffic_is_declared_anew_when_a_counter_is_gone_or_comes(host, nvml, monkeypatch) -> None:
    nvml.gpus = [GpuDouble("GPU-1")]
    source = host.source(GpuSource)
    declared: dict[str, dict[str, object]] = {}
    monkeypatch.setattr(source, "declare_metrics_nowait", declared.update)

    async def scope_at(seconds: int) -> object:
        source.tick = Timestamp(seconds * 10**9)
        host.now_s = float(seconds)
        await source.update()
        return declared["web1.gpu.gpu0.pcie.rx_bytes"]["scope"]

    with pytest.raises(KeyError):  # one reading of a counter is no rate
        await scope_at(2000)
    assert await scope_at(2001) == "last"
    nvml.gpus[0].errors |= {197: pynvml.NVML_ERROR_NOT_SUPPORTED}
    await scope_at(2002)
    assert await scope_at(2003) == "point"
    nvml.gpus[0].errors.clear()
    await scope_at(2040)  # a minute of the clock
    assert await scope_at(2041) == "last"
    await source.teardown()


def test_a_sample_is_in_kilobytes_of_1024(host, nvml) -> None:
    nvml.gpus = [GpuDouble("GPU-1", fields={}, throughput=(1000, 2000))]
    source = host.source(GpuSource)
    host.read(source)
    reading = of(host.read(source), "gpu0")
    assert (reading["pcie.tx_bytes"], reading["pcie.rx_bytes"]) == (1_024_000, 2_048_000)


def test_a_counter_of_32_bits_is_not_trusted(host, nvml) -> None:
    nvml.gpus = [GpuDouble("GPU-1", fields={197: (1, 5), 198: (1, 7)})]
    source = host.source(GpuSource)
    host.read(source)
    assert host.read(source)["gpu0.pcie.tx_bytes"] == 1_024_000


def test_a_family_without_a_reading_does_not_load_pynvml() -> None:
    code = "import agents.gpu.source, sys; sys.exit('pynvml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_metrics_are_declared_with_who_the_gpu_is_and_again_when_an_instance_is_another(
    host, nvml, monkeypatch
) -> None:
    gpu = GpuDouble("GPU-1", instances={0: Instance("MIG-1", "one")})
    nvml.gpus = [gpu]
    source = host.source(GpuSource)
    declared: dict[str, dict[str, object]] = {}
    monkeypatch.setattr(source, "declare_metrics_nowait", declared.update)
    for seconds in (2000, 2001):
        source.tick = Timestamp(seconds * 10**9)
        await source.update()
    assert declared["web1.gpu.gpu0.temperature"].items() >= {"unit": "Cel", "uuid": "GPU-1", "slowdown": 89}.items()
    assert declared["web1.gpu.gpu0.mig0.memory.used"]["instance_uuid"] == "MIG-1"
    declared.clear()
    source.tick = Timestamp(2002 * 10**9)
    await source.update()
    assert not declared
    gpu.instances = {0: Instance("MIG-9", "other")}
    source.tick = Timestamp(2010 * 10**9)
    await source.update()
    assert declared["web1.gpu.gpu0.mig0.memory.used"]["instance_uuid"] == "MIG-9"
    await source.teardown()
