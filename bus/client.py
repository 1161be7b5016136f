# SPDX-License-Identifier: MIT
"""`Client`: an agent that can talk to the manager and to other agents."""

import asyncio
import logging
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar, Unpack
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from bus.agent import TEARDOWN_S, Agent, AgentOptions
from bus.config import AgentConfig
from bus.errors import ConfigError, NotConnected, PublishFailed, Refused, RpcError, RpcTimeout
from bus.rpc import DEFAULT_TIMEOUT_S, Json, RpcLink, rpc_handler
from bus.timestamp import Timestamp
from bus.transport import connect
from bus.transport.base import Binding, Consumer, Consumption, Exchange, Queue, Transport

logger = logging.getLogger(__name__)

T = TypeVar("T")

MANAGEMENT = Exchange(name="metricq.management", kind="topic")
BROADCAST = Exchange(name="metricq.broadcast", kind="fanout")

LOWEST_BACKOFF_S = 1.0
HIGHEST_BACKOFF_S = 30.0
MANAGER_ANSWER_S = 1.0
REGISTER_TIMEOUT_S = 10.0


def hostbus_version() -> str:
    """The version of the installed distribution."""
    try:
        return version("hostbus")
    except PackageNotFoundError:
        return "0+source"


class Client(Agent):
    """An agent that talks to the manager: ``async with Client("my-tool", url) as client``.

    Args:
        token: the agent's unique name on the bus
        url: where the broker is, or a shared `Transport`
        options: see `AgentOptions`
    """

    def __init__(self, token: str, url: str | Transport = "", **options: Unpack[AgentOptions]) -> None:
        super().__init__(token, url, **options)
        self.started = Timestamp.now()
        self._link = RpcLink(self.transport, self.token, self, self.start_task)
        self._local = self.config.to_dict() if self.Config else {}
        self._configuring = asyncio.Lock()
        self._configurations = self._configurations_before = 0

    async def start(self) -> None:
        """Wait for the broker, then take part in RPCs."""
        await super().start()
        await self.transport.connected()
        queue = Queue(name=self._link.queue, durable=False, exclusive=True)
        await self._serve(queue, [Binding(exchange=BROADCAST, key="#")])
        await self.transport.declare_exchange(MANAGEMENT)

    async def _serve(self, queue: Queue, bindings: Sequence[Binding]) -> Consumer:
        """Answer the RPCs that arrive in a queue. Waits while another connection holds an exclusive one."""
        consumer: asyncio.Future[Consumer] = asyncio.get_running_loop().create_future()
        consumption = Consumption(
            queue=queue, bindings=bindings, on_delivery=self._link.receiver(consumer), prefetch=100
        )
        delay_s = LOWEST_BACKOFF_S
        while not consumer.done():
            try:
                consumer.set_result(await self._consume(self.transport, consumption))
            except Refused as error:
                if error.code != 405:
                    raise
                if delay_s == LOWEST_BACKOFF_S:
                    logger.warning(
                        "queue %s is held by another connection: if an agent with the token %s is running, stop it "
                        "or choose another --token; after a broken connection the broker frees it within a minute",
                        queue.name,
                        self.token,
                    )
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, HIGHEST_BACKOFF_S)
        return consumer.result()

    async def _consume(self, transport: Transport, consumption: Consumption) -> Consumer:
        """Consume until the agent ends: on a transport that others use too, that must be said."""
        consumer = await transport.consume(consumption)
        if not self.url:
            self.resources.push_async_callback(self._step, "stop consuming", consumer.cancel, TEARDOWN_S)
        return consumer

    async def rpc(self, function: str, /, *, timeout: float = DEFAULT_TIMEOUT_S, **arguments: Any) -> Json:
        """Ask the manager. Arguments are MetricQ's names (``dataQueue=...``); the reply is a JSON object.

        Raises RpcError with the manager's words, RpcTimeout (seconds: `timeout`), and NotConnected if there
        is no broker or no manager.
        """
        try:
            return await self._link.request(
                function, arguments, exchange=MANAGEMENT.name, routing_key=function, timeout_s=timeout
            )
        except PublishFailed as error:
            raise NotConnected(f"no manager takes requests: start one with 'agent start manager' ({error})") from error

    async def call(self, token: str, function: str, /, *, timeout: float = DEFAULT_TIMEOUT_S, **arguments: Any) -> Json:
        """Ask another agent directly.

        Raises RpcError with its words, RpcTimeout, PublishFailed if there is no agent with this token.
        """
        return await self._link.request(function, arguments, routing_key=f"{token}-rpc", timeout_s=timeout)

    async def has_manager(self) -> bool:
        """Whether a manager answers, within `MANAGER_ANSWER_S`."""
        try:
            await self.rpc("get_configs", timeout=MANAGER_ANSWER_S, selector=[])
        except (NotConnected, RpcTimeout):
            return False
        except RpcError:
            pass  # one that does not like the question is one, too
        return True

    async def discover(
        self, window_s: float = 2.0, until: Callable[[Mapping[str, Json]], bool] | None = None
    ) -> dict[str, Json]:
        """Who is on the bus: the replies of all agents that answer within `window_s` seconds, by token."""
        return await self._link.gather("discover", {}, exchange=BROADCAST.name, window_s=window_s, until=until)

    async def get_metrics(
        self,
        selector: str | Sequence[str] | None = None,
        metadata: bool = True,
        historic: bool | None = None,
        timeout: float | None = None,
        prefix: str | None = None,
        infix: str | None = None,
        limit: int | None = None,
        hidden: bool | None = None,
    ) -> dict[str, Json]:
        """Metrics that the manager knows, with their metadata, sorted by name.

        Args:
            selector: a regular expression found anywhere in the name, or a list of names
            metadata: False gives empty objects instead of metadata
            historic: only those that an archive keeps (True) or that none keeps (False)
            timeout: seconds to wait for the manager
            prefix: only names that begin with this
            infix: only names that contain this
            limit: at most so many
            hidden: only those that are (True) or are not (False) marked as hidden
        """
        filters = {
            "selector": list(selector) if selector is not None and not isinstance(selector, str) else selector,
            "historic": historic,
            "prefix": prefix,
            "infix": infix,
            "limit": limit,
            "hidden": hidden,
        }
        arguments = {name: value for name, value in filters.items() if value is not None}
        reply = await self.rpc(
            "get_metrics",
            timeout=timeout or DEFAULT_TIMEOUT_S,
            format="object" if metadata else "array",
            **arguments,
        )
        metrics = reply["metrics"]
        return metrics if isinstance(metrics, dict) else {name: {} for name in metrics}

    @rpc_handler("discover")
    async def _rpc_discover(self, **_others: Any) -> Json:
        now = Timestamp.now()
        return {
            "alive": True,
            "currentTime": now.isoformat(),
            "startingTime": self.started.isoformat(),
            "uptime": (now - self.started).ns,
            "metricqVersion": f"hostbus/{hostbus_version()}",
            "pythonVersion": ".".join(map(str, sys.version_info[:3])),
            "hostname": socket.gethostname(),
            "type": type(self).__name__,
            **self.vital_signs(),
        }

    def vital_signs(self) -> Json:
        """Counters of this agent's health, for `discover`. Subclasses add to them."""
        return {}

    @rpc_handler("config")
    async def _rpc_config(self, **pushed: Any) -> None:
        """Lay what the manager has over the local configuration, if the class has a `Config`."""
        self._configurations += 1
        try:
            async with self._configuring:
                await self._lay_over_local(pushed)
        except BaseException:
            self._configurations -= 1
            raise

    async def _lay_over_local(self, pushed: Json) -> None:
        if self.Config is not None:
            if forbidden := sorted(self.Config.local_only & pushed.keys()):
                keys = " ".join(f"{name}=null" for name in forbidden)
                raise ConfigError(
                    f"{self.token}: {', '.join(forbidden)} cannot be set over the bus, only on the agent's own host: "
                    "in its hostbus.toml or on its command line (what the manager keeps of it goes by "
                    f"'agent config set {self.token} {keys}')"
                )
            new = self.Config.load({**self._local, **pushed}, where=self.token)
            if new != self.config:
                await self.reconfigure(new)
                # Names only: a value may be a password.
                logger.info("%s: a new configuration is in force, with %s", self.token, ", ".join(pushed) or "defaults")

    async def reload(self, config: AgentConfig) -> None:
        """Take another local configuration; what the manager pushed since the start stays on top of it."""
        async with self._configuring:
            on_top = {
                name: value
                for name, value in self.config.to_dict().items()
                if name in self._local and value != self._local[name]
            }
            local = config.to_dict()
            new = type(config).load({**local, **on_top}, where=self.token)
            await self.reconfigure(new)
            self._local = local

    async def _persist(self, what: str, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer, however long the broker or the manager is away.

        Raises RpcError: an answer, too.
        """
        delay_s = LOWEST_BACKOFF_S
        waiting_since: float | None = None
        clock = asyncio.get_running_loop().time
        while True:
            try:
                answer = await ask()
            except (NotConnected, RpcTimeout, PublishFailed) as error:
                if waiting_since is None:
                    waiting_since = clock()
                    logger.warning("%s is waiting for the manager to %s: %s", self.token, what, error)
            else:
                if waiting_since is not None:
                    logger.info("%s: the manager answered after %.0f s", self.token, clock() - waiting_since)
                return answer
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, HIGHEST_BACKOFF_S)
            await self.transport.connected()

    async def _after_reconnects(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do this after every connection but the present one: the broker or the manager may have lost what it knew."""
        seen = await self.transport.connected()
        while True:
            seen = await self.transport.connected(seen)
            await act()

    async def _register(self, function: str) -> Json:
        """Register with the manager, however long that takes; `_accept_config` takes the reply."""
        self._configurations_before = self._configurations
        return await self._persist("register", lambda: self.rpc(function, timeout=REGISTER_TIMEOUT_S))

    async def _accept_config(self, reply: Json) -> None:
        """Put the configuration of a register reply in force; one that is not valid is logged, the old stays.

        What else a handler of ``config`` raises is raised: a metric that it declared may belong to another.
        """
        config = reply.get("config")
        if not isinstance(config, dict):
            return
        if self._configurations != self._configurations_before:
            return  # a newer one was pushed while the reply was on its way
        try:
            await self._persist(
                "put its configuration in force",
                lambda: self.rpc_dispatch("config", config, from_token="manager"),  # noqa: S106  # an agent's name
            )
        except (ConfigError, ValueError, KeyError) as error:
            logger.error("%s refused the configuration that the manager holds for it: %s", self.token, error)  # noqa: TRY400

    async def data_transport(self, address: str) -> Transport:
        """The transport for data, which a stock MetricQ network may keep on another server or virtual host."""
        url = data_url(self.url, address)
        if url == self.url:
            return self.transport
        transport = connect(url)
        await self.use_transport(transport)
        return transport


def data_url(own: str, address: str) -> str:
    """The URL of the data server: MetricQ's `dataServerAddress` with the credentials of our own URL.

    The address is ``vhost:NAME`` on our own server, or a URL. Returns `own` if that is the same place.
    """
    ours = urlsplit(own)
    if not own or not address or ours.scheme == "memory":
        return own
    if address.startswith("vhost:"):
        theirs = ours._replace(path="/" + address.removeprefix("vhost:").lstrip("/"))
    else:
        theirs = urlsplit(address)
        credentials, at, _ = ours.netloc.rpartition("@")
        theirs = theirs._replace(netloc=credentials + at + theirs.netloc.rpartition("@")[2], query=ours.query)
    return own if _place(theirs) == _place(ours) else urlunsplit(theirs)


def _place(url: SplitResult) -> tuple[str, int, str]:
    port = url.port or (5671 if url.scheme == "amqps" else 5672)
    return url.hostname or "", port, unquote(url.path).strip("/")
