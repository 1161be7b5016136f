# SPDX-License-Identifier: MIT
"""What only an agent's own host may set is refused when it comes over the bus."""

from typing import Any, ClassVar

import pytest
from msgspec import field

from bus.client import Client
from bus.config import AgentConfig
from bus.errors import RpcError
from bus.interval import IntervalSource
from bus.manager import Manager
from bus.sink import DurableSink
from bus.timestamp import Timedelta
from tests.bus.support import break_connection


class RunnerConfig(AgentConfig, frozen=True, kw_only=True):
    local_only: ClassVar[frozenset[str]] = frozenset({"commands", "folder"})

    commands: list[str] = field(default_factory=list)
    folder: str = ""
    rate: float = 1.0


class Runner(DurableSink):
    """Runs programs: which, only its own host may say."""

    Config = RunnerConfig

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seen: list[AgentConfig] = []

    async def reconfigure(self, config: AgentConfig) -> None:
        await super().reconfigure(config)
        self.seen.append(config)


async def test_what_only_the_host_may_set_is_refused_from_the_bus_whole_and_not_stored(memory_url: str) -> None:
    own = RunnerConfig(commands=["uptime"])
    async with (
        Manager("manager", memory_url) as manager,
        Runner("sink-a", memory_url, config=own) as runner,
        Client("tool", memory_url) as tool,
    ):
        await tool.rpc("config.set", token="sink-a", config={"rate": 2})
        for config in ({"commands": ["evil"], "rate": 3}, {"commands": ["uptime"]}, {"rate": 3, "folder": ""}):
            with pytest.raises(RpcError) as refused:
                await tool.rpc("config.set", token="sink-a", config=config)
            (key,) = config.keys() - {"rate"}
            assert f"sink-a: {key} cannot be set over the bus, only on the agent's own host" in str(refused.value)
            assert "in its hostbus.toml or on its command line" in str(refused.value)
            assert "evil" not in str(refused.value)
        with pytest.raises(RpcError, match="cannot be set over the bus"):
            await tool.call("sink-a", "config", commands=["evil"])  # past the manager
        assert runner.config == RunnerConfig(commands=["uptime"], rate=2)
        assert manager._registry.config("sink-a") == {"rate": 2}
        assert (await tool.rpc("config.set", token="sink-a", config={"rate": 4}))["applied"] is True
        assert runner.config == RunnerConfig(commands=["uptime"], rate=4)


async def test_what_the_manager_kept_for_an_agent_that_was_away_is_refused_at_its_start(
    memory_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Manager("manager", memory_url) as manager, Client("tool", memory_url) as tool:
        kept = {"commands": ["evil"], "folder": "/etc", "rate": 5}
        assert (await tool.rpc("config.set", token="sink-a", config=kept))["applied"] is False
        async with Runner("sink-a", memory_url, config=RunnerConfig(commands=["uptime"])) as runner:
            assert runner.config == RunnerConfig(commands=["uptime"])
            assert runner.seen == []
            (line,) = [line for line in caplog.messages if "refused the configuration" in line]
            assert "commands, folder cannot be set over the bus" in line
            assert "evil" not in line
            # Nothing more comes through until it is gone, and the error says how it goes.
            with pytest.raises(RpcError, match="'agent config set sink-a commands=null folder=null'"):
                await tool.rpc("config.set", token="sink-a", config={"rate": 6})
            await tool.rpc("config.set", token="sink-a", config={"commands": None, "folder": None})
            assert manager._registry.config("sink-a") == {"rate": 5}
            assert runner.config == RunnerConfig(commands=["uptime"], rate=5)


async def test_what_only_the_host_may_set_comes_with_its_file_whatever_was_pushed(memory_url: str) -> None:
    async with (
        Manager("manager", memory_url),
        Runner("sink-a", memory_url, config=RunnerConfig(commands=["uptime"])) as runner,
        Client("tool", memory_url) as tool,
    ):
        await tool.rpc("config.set", token="sink-a", config={"rate": 5})
        await runner.reload(RunnerConfig(commands=["date", "who"], folder="/srv"))
        assert runner.config == RunnerConfig(commands=["date", "who"], folder="/srv", rate=5)
        await runner.reload(RunnerConfig())
        assert runner.config == RunnerConfig(rate=5)
        await break_connection(runner.transport)
        await tool.rpc("config.set", token="sink-a", config={"rate": 7})
        assert runner.config == RunnerConfig(rate=7)


async def test_a_refused_push_changes_no_period_either(memory_url: str) -> None:
    class TickingConfig(AgentConfig, frozen=True, kw_only=True):
        local_only: ClassVar[frozenset[str]] = frozenset({"commands"})
        commands: list[str] = field(default_factory=list)
        period: float = 60.0

    class Ticking(IntervalSource):
        Config = TickingConfig

        async def update(self) -> None:
            pass

    async with (
        Manager("manager", memory_url),
        Ticking("source-a", memory_url, period=60) as source,
        Client("tool", memory_url) as tool,
    ):
        with pytest.raises(RpcError, match="commands cannot be set over the bus"):
            await tool.rpc("config.set", token="source-a", config={"period": 0.5, "commands": ["evil"]})
        assert source.period == Timedelta.from_s(60)
