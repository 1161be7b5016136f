# SPDX-License-Identifier: MIT
"""`Agent`: what every program on the bus has in common: a token, a transport, tasks, a start and an end.

An agent's life: `setup` (own resources), `start` (join the bus, begin to work), then work until `stop` is
called, a signal comes or one of its tasks raises; then, within 10 s for all of it,

1. `wind_down`: stop the intake, send what is buffered (`WIND_DOWN_S`);
2. cancel the tasks that are left;
3. `teardown`: close own resources (`TEARDOWN_S`);
4. close the transport, if it is the agent's own.
"""

import asyncio
import logging
import os
import signal
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from contextvars import ContextVar
from types import TracebackType
from typing import Any, ClassVar, Self, TypedDict

from bus.config import AgentConfig
from bus.errors import NotConnected
from bus.names import check_token
from bus.rpc import RpcDispatcher
from bus.transport import connect
from bus.transport.base import Transport

logger = logging.getLogger(__name__)

DEFAULT_URL = "amqp://localhost/"
WIND_DOWN_S = 5.0
TEARDOWN_S = 2.0
"""With at most 2 s for the transport, an agent ends within 10 s."""


class AgentOptions(TypedDict, total=False):
    """Keyword arguments that every agent takes.

    add_uuid: append a random part to the token, for clients of which there may be many.
    config: an instance of the class's `Config`; default: all defaults.
    """

    add_uuid: bool
    config: AgentConfig | None


_inside: ContextVar["frozenset[Agent]"] = ContextVar("_inside", default=frozenset())
"""The agents whose end would end the running task: it must not wait for theirs."""


class _End(Exception):  # ends the task group from within, which cancels what is left
    pass


class Agent(RpcDispatcher):
    """A program on the bus.

    Use it as ``async with Agent(...) as agent``, by `connect` and `stop`, or let `run` do all of it.

    Args:
        token: the agent's unique name on the bus, like ``source-cpu-web1``
        url: where the broker is (``amqp://``, ``amqps://``, ``memory://``), or an open `Transport` that
            the agent shares with others and does not close
    """

    Config: ClassVar[type[AgentConfig] | None] = None
    """The struct of an agent that can be configured."""

    def __init__(
        self,
        token: str,
        url: str | Transport = "",
        *,
        add_uuid: bool = False,
        config: AgentConfig | None = None,
    ) -> None:
        self.token = check_token(f"{token}.{uuid.uuid4().hex}" if add_uuid else token)
        self.config = _checked_config(type(self), config)
        self.url = (url or default_url()) if isinstance(url, str) else ""
        self.transport: Transport = url if not isinstance(url, str) else connect(self.url)
        self.resources = AsyncExitStack()
        self._stopping = asyncio.Event()
        self._working = asyncio.Event()
        self._failure: BaseException | None = None
        self._group = asyncio.TaskGroup()
        self._ending = False
        self._life: asyncio.Task[None] | None = None

    # -- hooks for subclasses, each calls super() ------------------------------------------------------

    async def setup(self) -> None:
        """Open own resources. Runs before anything else; if it raises, the agent does not start."""

    async def start(self) -> None:
        """Join the bus and begin to work. Long-lived work goes into `start_task`."""

    async def wind_down(self) -> None:
        """Stop the intake and send what is buffered. Cut off after `WIND_DOWN_S`."""

    async def teardown(self) -> None:
        """Close own resources. Nothing is consumed or sampled any more."""

    async def reconfigure(self, config: AgentConfig) -> None:
        """Put a valid configuration in force, or raise ConfigError: then the old one stays."""
        self.config = config

    # -- life ------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Start; returns when the agent is working. Raises what kept it from starting."""
        if self._life is not None:
            raise RuntimeError(f"{self.token} was started before; an agent lives once")
        life = self._life = asyncio.create_task(self._live(), name=f"{self.token}: life")
        working = asyncio.create_task(self._working.wait(), name=f"{self.token}: working")
        try:
            await asyncio.wait({life, working}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.stop()
            raise
        finally:
            working.cancel()
            await asyncio.wait({working})
        if life.done():
            life.result()

    async def stop(self) -> None:
        """End in order, within 10 s. May be called twice.

        From within the agent (a hook, a handler, any task that it began) it returns at once: what the end
        waits for cannot wait for the end.
        """
        self._stopping.set()
        if self._life is not None and self not in _inside.get():
            await asyncio.wait({self._life})

    async def stopped(self) -> None:
        """Wait for the end. Raises what made the agent fail, if anything did."""
        if self._life is None:
            raise RuntimeError(f"{self.token} was not started")
        await asyncio.wait({self._life})
        self._life.result()

    async def __aenter__(self) -> Self:
        await self.connect()
        if not self._working.is_set():
            raise NotConnected(f"{self.token} was stopped before it worked")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if error is None:
            await self.stopped()

    def run(self) -> None:
        """Block until the agent ends: by SIGINT or SIGTERM (returns) or by an error (raises it)."""
        with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
            runner.run(self._run_with_signals())

    async def _run_with_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        await self.connect()
        await self.stopped()

    def start_task(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Start a task that the agent owns: cancelled at the end; if it raises, the agent fails with that."""
        if self._ending:  # a message came in while the last tasks are being cancelled
            work.close()
            return
        task = self._group.create_task(self._supervise(work), name=f"{self.token}: {name}")
        task.add_done_callback(lambda _: work.close())  # it may have been cancelled before it began

    async def _supervise(self, work: Coroutine[Any, Any, None]) -> None:
        _inside.set(_inside.get() | {self})
        try:
            await work
        except asyncio.CancelledError:
            if self._ending or (task := asyncio.current_task()) is None or task.cancelling():
                raise
            # Nobody cancelled us: something within did, and a task group would take that for a normal end.
            self._fail(RuntimeError(f"a task of {self.token} ended by a cancellation from within"))
        except Exception as error:  # noqa: BLE001  # kept, not swallowed: `stopped` raises it after the wind-down
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
        self._stopping.set()

    async def _live(self) -> None:
        """The whole life; the one task that owns all others."""
        _inside.set(_inside.get() | {self})
        try:
            async with self.resources:
                if self.url:
                    await self.use_transport(self.transport)
                await self.setup()
                await self._work()
        except Exception as error:
            if self._failure is None:
                self._failure = error
            else:
                logger.exception("%s could not close its resources", self.token)
        if self._failure is not None:
            raise self._failure

    async def use_transport(self, transport: Transport) -> None:
        """Open a transport that belongs to this agent alone; it is closed last."""
        await transport.open()
        self.resources.push_async_callback(transport.aclose)

    async def _work(self) -> None:
        try:
            async with self._group:
                self.start_task(self._start(), name="start")
                await self._stopping.wait()
                if self._working.is_set():
                    await self._step("send all that is buffered", self.wind_down, WIND_DOWN_S)
                self._ending = True
                raise _End
        except* _End:
            pass
        finally:
            self._ending = True
            await self._step("close its resources", self.teardown, TEARDOWN_S)

    async def _start(self) -> None:
        await self.start()
        self._working.set()

    async def _step(self, name: str, work: Callable[[], Awaitable[None]], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await work()
        except TimeoutError:
            logger.warning("%s could not %s within %g s", self.token, name, timeout_s)
        except Exception as error:
            # The steps that follow must be taken all the same; `stopped` raises the first failure.
            if self._failure is None:
                self._failure = error
            else:
                logger.exception("%s could not %s", self.token, name)


def _checked_config(cls: type[Agent], config: AgentConfig | None) -> AgentConfig:
    """The configuration to begin with. Raises TypeError for one that belongs to another class."""
    if cls.Config is None:
        if config is not None:
            raise TypeError(f"{cls.__name__} takes no config")
        return AgentConfig()
    if config is None:
        return cls.Config.load({}, where=cls.__name__)
    if not isinstance(config, cls.Config):
        raise TypeError(f"{cls.__name__} takes a {cls.Config.__name__}, not {type(config).__name__}")
    return config


def default_url() -> str:
    """The broker of this user: the environment variable HOSTBUS_SERVER, else `DEFAULT_URL`."""
    return os.environ.get("HOSTBUS_SERVER") or DEFAULT_URL


def event_loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where it exists, which saves a quarter of the CPU time of a small message; else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
