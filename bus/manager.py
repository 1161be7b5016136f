# SPDX-License-Identifier: MIT
"""`Manager`: the agent that answers the management RPCs.

It knows which metric belongs to which source, declares the queues of sinks, and keeps the configurations.
Points never pass through it: it may be away, and everything that is set up goes on.
"""

import asyncio
import logging
import os
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal
from weakref import WeakValueDictionary

import msgspec
from msgspec import Meta

from bus.client import MANAGEMENT, Client
from bus.config import AgentConfig
from bus.errors import ConfigError, HostbusError, PublishFailed, RpcError, RpcTimeout
from bus.names import check_metric, check_token, is_pattern, matches
from bus.queues import CHUNKS, DATA_SUFFIX, FRAMES, HISTORY, DataQueues, durable_name, history_name, live_name
from bus.registry import Registry, matching
from bus.rpc import Json, rpc_handler
from bus.state import make_state_folder, state_file
from bus.transport.base import Binding, Queue, Transport

logger = logging.getLogger(__name__)

PUSH_TIMEOUT_S = 10.0
MAX_EXPIRES_S = 4_294_967
"""RabbitMQ holds the time in 32 bits of milliseconds: 49 days."""

ARCHIVE_HEARD_S = 150.0
"""An archive of ours says every minute what it keeps: one not heard of for so long is not to be waited for."""

LIVENESS_WINDOW_S = 2.0
"""How long an owner of a metric has to answer before somebody else may have it."""

Metrics = dict[str, Json] | list[str]
"""Metric names, with or without metadata."""


def default_store() -> str:
    """The store of this user's manager."""
    return state_file("manager.db")


class ManagerConfig(AgentConfig, frozen=True, kw_only=True):
    """The manager's configuration."""

    store: Annotated[
        str, Meta(min_length=1, description="SQLite file for metrics and configurations; ':memory:' keeps nothing")
    ] = msgspec.field(default_factory=default_store)
    wire: Annotated[
        Literal["frame", "metricq"],
        Meta(description="how sources of this network send: frames, or MetricQ's chunks for stock sinks"),
    ] = "frame"


class Manager(Client):
    """The manager of a network. There is one per broker (virtual host).

    Args:
        token: its name on the bus
        url: where the broker is, or a shared `Transport`
        config: see `ManagerConfig`
    """

    Config = ManagerConfig
    config: ManagerConfig

    def __init__(
        self,
        token: str = "manager",
        url: str | Transport = "",
        *,
        config: ManagerConfig | None = None,
    ) -> None:
        super().__init__(token, url, config=config)
        self._queues = DataQueues(self.transport)
        self._declaring = asyncio.Lock()
        self._config_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def setup(self) -> None:
        """Open the store."""
        path = self.config.store
        if path == default_store():
            await asyncio.to_thread(make_state_folder, "--store (hostbus.toml: store)")
        self._registry = await self.resources.enter_async_context(
            Registry.open(path if path == ":memory:" else os.path.expanduser(path))
        )
        await super().setup()

    async def start(self) -> None:
        """Declare the exchanges, then answer requests. Raises HostbusError if another manager does so already."""
        await super().start()
        if await self.has_manager():
            raise HostbusError(
                f"the broker at {self.transport.url} has a manager already, and two would answer in turns: "
                "stop the other one, or start this one on another virtual host"
            )
        await self._accept_config({"config": self._registry.config(self.token)})
        await self._queues.declare_exchanges()
        await self._serve(Queue(name="management"), [Binding(exchange=MANAGEMENT, key="#")])
        self.start_task(self._after_reconnects(self._declare_again), name="declare exchanges again")

    async def _declare_again(self) -> None:
        await self._persist("declare exchanges", self._queues.declare_exchanges)

    async def reconfigure(self, config: AgentConfig) -> None:
        """`wire` holds for sources that register from now on; the store cannot change."""
        if isinstance(config, ManagerConfig) and config.store != self.config.store:
            raise ConfigError("the store of a running manager cannot change: restart it with another --store")
        await super().reconfigure(config)

    # -- sources ---------------------------------------------------------------------------------------

    @rpc_handler("source.register", "transformer.register")
    async def _register_source(self, from_token: str, **_others: Any) -> Json:
        reply = {
            "dataServerAddress": self._data_server,
            "dataExchange": CHUNKS.name,
            "config": self._registry.config(from_token),
        }
        return reply if self.config.wire == "metricq" else {**reply, "frameExchange": FRAMES.name}

    @property
    def _data_server(self) -> str:
        """MetricQ's way to say: the same broker and virtual host as this one."""
        return "vhost:" + (self.transport.url.partition("://")[2].partition("/")[2].partition("?")[0] or "/")

    @rpc_handler("source.declare_metrics", "transformer.declare_metrics")
    async def _declare_metrics(self, metrics: Metrics, from_token: str) -> Json:
        described = metrics if isinstance(metrics, dict) else {name: {} for name in metrics}
        for name in described:
            check_metric(name)
        async with self._declaring:
            await self._check_owners(described, from_token)
            await self._registry.declare(
                from_token,
                {name: {**about, "source": from_token} for name, about in described.items()},
            )
        return {}

    async def _check_owners(self, metrics: Mapping[str, Json], from_token: str) -> None:
        """A metric has one owner. Raises RpcError if another source has one of these and is alive."""
        known = self._registry.metrics
        foreign = {name: known[name].owner for name in metrics if name in known and known[name].owner != from_token}
        owners = set(foreign.values())
        if not owners:
            return
        alive = owners & set(await self.discover(LIVENESS_WINDOW_S, lambda replies: owners <= replies.keys()))
        for name, owner in foreign.items():
            if owner in alive:
                more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
                raise RpcError(
                    f"metric {name!r}{more} belongs to {owner!r}, which is alive: "
                    "stop it, or publish under another --prefix"
                )
        logger.warning(
            "%s takes over %d metrics (%s, ...) from %s, which does not answer",
            from_token,
            len(foreign),
            next(iter(foreign)),
            ", ".join(sorted(owners)),
        )

    # -- sinks -----------------------------------------------------------------------------------------

    @rpc_handler("sink.register")
    async def _register_sink(self, from_token: str, **_others: Any) -> Json:
        await self._registry.add_sink(from_token)
        return {"dataServerAddress": self._data_server, "config": self._registry.config(from_token)}

    @rpc_handler("sink.subscribe", "transformer.subscribe")
    async def _subscribe(
        self,
        metrics: list[str],
        from_token: str,
        data_queue: str | None = None,
        expires: Annotated[float, Meta(gt=0, le=MAX_EXPIRES_S)] | None = None,
        metadata: bool = True,
        frames: bool = False,
    ) -> Json:
        if data_queue is None:
            is_durable = from_token in self._registry.sinks
            data_queue = durable_name(from_token) if is_durable else live_name(from_token)
        await self._queues.subscribe(data_queue, metrics, expires, frames=frames)
        return {
            "dataServerAddress": self._data_server,
            "dataQueue": data_queue,
            "metrics": self._selected(metrics) if metadata else metrics,
        }

    @rpc_handler("sink.unsubscribe")
    async def _unsubscribe(self, data_queue: str, metrics: list[str], end: bool = True) -> Json:
        await self._queues.unsubscribe(data_queue, metrics)
        if end:
            await self._queues.send_end(data_queue, self.token)
        return {
            "dataServerAddress": self._data_server,
            "dataQueue": data_queue,
            "metrics": self._selected(metrics),
        }

    @rpc_handler("sink.release")
    async def _release(self, data_queue: str) -> Json:
        await self._queues.release(data_queue)
        if data_queue.endswith(DATA_SUFFIX):
            await self._forget_archive(data_queue.removesuffix(DATA_SUFFIX))
        return {}

    def _selected(self, patterns: list[str]) -> dict[str, Json]:
        """Metadata of the known metrics that these names and patterns select; names need not be known."""
        about = self._registry.metadata
        selected: dict[str, Json] = {}
        for pattern in patterns:
            if is_pattern(pattern):
                selected.update({name: about(name) for name in self._registry.metrics if matches(pattern, name)})
            else:
                selected[pattern] = about(pattern)
        return selected

    # -- history ---------------------------------------------------------------------------------------

    @rpc_handler("history.register")
    async def _register_history(self, from_token: str, **_others: Any) -> Json:
        return {
            "dataServerAddress": self._data_server,
            "historyExchange": HISTORY.name,
            "historyQueue": await self._queues.declare_history(from_token, "hrsp"),
            "config": self._registry.config(from_token),
        }

    @rpc_handler("history.archives")
    async def _archives_of(self, metrics: list[str]) -> Json:
        """Who keeps each of these metrics: the tokens of archives, from each of which an answer may be expected."""
        heard = self._registry.archives_heard(ARCHIVE_HEARD_S)
        return {"archives": {name: [token for token, kept in heard.items() if name in kept] for name in metrics}}

    @rpc_handler("db.register")
    async def _register_db(self, from_token: str, data: bool = True, **_others: Any) -> Json:
        return {
            **await self._database_queues(from_token, [] if data else None),
            "config": self._registry.config(from_token),
        }

    @rpc_handler("db.subscribe")
    async def _subscribe_db(
        self, metrics: list[str | Json], from_token: str, metadata: bool = True, data: bool = True
    ) -> Json:
        """`data`: the archive is to get the points of these metrics; ours has subscribed to patterns before."""
        # An item is a name, or an object: `input` is what to record, `name` what it is called in history.
        items = [{"name": item} if isinstance(item, str) else item for item in metrics]
        names = [_name_in(item, "name") for item in items]
        inputs = [_name_in(item, "input" if "input" in item else "name") for item in items]
        reply = await self._database_queues(from_token, inputs if data else None)
        await self._queues.bind_history(reply["historyQueue"], names)
        await self._registry.keep(from_token, names)
        return {
            **reply,
            "metrics": self._selected(names) if metadata else names,
            "kept": len(self._registry.kept.get(from_token, ())),
        }

    async def _database_queues(self, token: str, inputs: list[str] | None) -> Json:
        """The queues of an archive, made if need be, one for `inputs` too unless that is None."""
        queues = {"historyQueue": await self._queues.declare_history(token, "hreq")}
        if inputs is not None:
            queues["dataQueue"] = durable_name(token)
            await self._queues.subscribe(queues["dataQueue"], inputs, frames=False)
        return {"dataServerAddress": self._data_server, **queues}

    @rpc_handler("db.unsubscribe")
    async def _unsubscribe_db(self, metrics: list[str], from_token: str) -> Json:
        """The archive has these metrics no more. MetricQ's protocol has no word for it."""
        names = [check_metric(name) for name in metrics]
        await self._queues.unbind_history(history_name(from_token, "hreq"), names)
        await self._registry.forget(from_token, names)
        return {"kept": len(self._registry.kept.get(from_token, ()))}

    @rpc_handler("db.retain")
    async def _retain_db(self, metrics: list[str], from_token: str) -> Json:
        """The archive keeps none but these; what it said before may have been about another file."""
        gone = self._registry.kept.get(from_token, set()) - set(metrics)
        return await self._unsubscribe_db(list(gone), from_token)

    @rpc_handler("db.release")
    async def _release_db(self, from_token: str) -> Json:
        """The archive is gone for good: it keeps nothing."""
        await self._forget_archive(from_token)
        return {}

    async def _forget_archive(self, token: str) -> None:
        await self._queues.release_history(token)
        await self._registry.forget(token)

    # -- questions -------------------------------------------------------------------------------------

    @rpc_handler("get_metrics")
    async def _get_metrics(
        self,
        format: Literal["array", "object"] = "array",  # noqa: A002  # MetricQ's name
        selector: str | list[str] | None = None,
        prefix: str | None = None,
        infix: str | None = None,
        historic: bool | None = None,
        hidden: bool | None = None,
        limit: Annotated[int, Meta(ge=0)] | None = None,
        **_others: Any,
    ) -> Json:
        known: Collection[str] = self._registry.metrics
        if historic:
            # Archives keep metrics, too, whose sources are long gone.
            known = set().union(*self._registry.kept.values())
        chosen = matching(known, selector)
        found: dict[str, Json] = {}
        for name in sorted(chosen):
            about = self._registry.metadata(name)
            if (
                (prefix is None or name.startswith(prefix))
                and (infix is None or infix in name)
                and (historic is None or bool(about.get("historic", False)) == historic)
                and (hidden is None or bool(about.get("hidden", False)) == hidden)
            ):
                if limit is not None and len(found) >= limit:
                    break
                found[name] = about
        return {"metrics": found if format == "object" else list(found)}

    @rpc_handler("get_configs")
    async def _get_configs(self, selector: str | list[str] | None = None) -> Json:
        return {token: self._registry.config(token) for token in sorted(matching(self._registry.configs, selector))}

    # -- configurations --------------------------------------------------------------------------------

    @rpc_handler("config.get")
    async def _config_get(self, token: str) -> Json:
        versions = self._registry.configs.get(token)
        return {"version": versions[-1].version if versions else 0, "config": self._registry.config(token)}

    @rpc_handler("config.history")
    async def _config_history(self, token: str) -> Json:
        return {
            "versions": [
                {"version": old.version, "config": old.config, "time": old.set_at.isoformat(), "by": old.set_by}
                for old in self._registry.configs.get(token, [])
            ]
        }

    @rpc_handler("config.set")
    async def _config_set(self, token: str, config: Json, from_token: str, merge: bool = True) -> Json:
        """Push a configuration to the running agent, then store it. A key that is null is removed."""
        check_token(token)
        if "function" in config:
            raise RpcError("config: 'function' cannot be a key: in the message to the agent it names the function")
        async with self._config_locks.setdefault(token, asyncio.Lock()):
            whole = {**self._registry.config(token), **config} if merge else config
            return await self._put_in_force(
                token, {key: value for key, value in whole.items() if value is not None}, from_token
            )

    @rpc_handler("config.rollback")
    async def _config_rollback(self, token: str, from_token: str, version: int | None = None) -> Json:
        """Put an earlier version in force again (default: the one before), as a new version."""
        async with self._config_locks.setdefault(token, asyncio.Lock()):
            versions = self._registry.configs.get(token, [])
            wanted = version if version is not None else len(versions) - 1
            if not 1 <= wanted <= len(versions):
                raise RpcError(
                    f"{token!r} has no version {wanted} of its configuration: it has {len(versions)}, counted from 1"
                )
            return await self._put_in_force(token, versions[wanted - 1].config, from_token)

    async def _put_in_force(self, token: str, config: Json, by: str) -> Json:
        """The agent is asked first: what it rejects is not stored. One that is not running gets it at its start."""
        try:
            # Not by `call`: any name may be a key, `timeout` too.
            await self._link.request("config", config, routing_key=f"{token}-rpc", timeout_s=PUSH_TIMEOUT_S)
            is_applied = True
        except PublishFailed:
            is_applied = False
        except RpcTimeout:
            raise RpcError(f"{token!r} did not answer within {PUSH_TIMEOUT_S:g} s: nothing was changed") from None
        except RpcError as error:
            raise RpcError(f"{token!r} rejected the configuration, the old one stays: {error}") from None
        stored = await self._registry.set_config(token, config, by)
        return {"version": stored.version, "config": config, "applied": is_applied}


def _name_in(item: Json, key: str) -> str:
    """The metric that an item of ``db.subscribe`` has under this key. Raises RpcError, or ValueError for no metric."""
    name = item.get(key)
    if not isinstance(name, str):
        raise RpcError(f"db.subscribe: metrics: each is a name, or an object with a {key!r}")
    return check_metric(name)
