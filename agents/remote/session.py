# SPDX-License-Identifier: MIT
"""One held session with a host: a shell that is given a script per round, or a channel for each command."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import asyncssh

from agents.remote.connecting import CannotConnect, Connector
from agents.remote.script import MAX_OUTPUT_BYTES, SHELL, Answer, Answers, BadAnswer, compose
from agents.remote.target import MonitorTarget
from bus.errors import HostbusError

logger = logging.getLogger(__name__)


class SessionLost(HostbusError):
    """The session ended, or was ended because of what the host sent; says why."""


class Session:
    """A host's shell, held open. Where the host allows no shell of ours, each command gets a channel of its own.

    Args:
        connection: the connection, which is not the session's own
        clock: seconds, for the times of answers
    """

    def __init__(self, connection: asyncssh.SSHClientConnection, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._clock = clock
        self._mark = secrets.token_hex(12)
        self._scripts: dict[tuple[str, ...], bytes] = {}
        self._shell: _Shell | None = None
        self._running: asyncssh.SSHClientChannel[bytes] | None = None
        self.begun = False
        """True once the host has answered in the current round."""

    @property
    def has_shell(self) -> bool:
        """False if every command has a channel of its own."""
        return self._shell is not None

    async def open(self) -> None:
        """Try the shell. Raises CannotConnect if the host opens no channel at all."""
        shell = _Shell(self._clock)
        try:
            channel, _ = await self._channel(shell, SHELL)
        except (OSError, asyncssh.Error) as error:
            raise CannotConnect(f"the host opens no session: {error}") from error
        shell.channel = channel
        try:
            await shell.ask(compose((), self._mark), 0, self._mark, [])
        except SessionLost:
            channel.abort()
            if self._connection.is_closed():
                raise
        else:
            self._shell = shell

    async def ask(self, commands: Sequence[str], answers: list[Answer]) -> None:
        """Run commands, and add each one's answer as it comes. Raises SessionLost."""
        self.begun = False
        if self._shell is None:
            await self._ask_each(commands, answers)
            return
        key = tuple(commands)
        script = self._scripts.get(key)
        if script is None:
            if len(self._scripts) > 100:
                self._scripts.clear()
            script = self._scripts[key] = compose(commands, self._mark)
        shell = self._shell
        try:
            await shell.ask(script, len(commands), self._mark, answers)
        finally:
            self.begun = shell.begun

    async def ended(self) -> None:
        """Wait until the session cannot be used any more."""
        if self._shell is None:
            await self._connection.wait_closed()
        else:
            await self._shell.ended.wait()

    def give_up(self) -> None:
        """End the session without waiting; the host is told to end what it runs for us, if it still listens."""
        channel = self._running or (self._shell.channel if self._shell else None)
        if channel is not None:
            with contextlib.suppress(OSError, asyncssh.Error):
                channel.send_signal("KILL")
        self._connection.abort()

    async def _ask_each(self, commands: Sequence[str], answers: list[Answer]) -> None:
        room = MAX_OUTPUT_BYTES
        for command in commands:
            output = _Output(room)
            try:
                self._running, _ = await self._channel(output, command, env={"LC_ALL": "C"})
                self._running.write_eof()
                self.begun = True
                await output.ended.wait()
            except (OSError, asyncssh.Error) as error:
                raise SessionLost(f"{type(error).__name__}: {error}") from error
            room -= len(output.data)
            if room < 0:
                self._running.abort()
                raise SessionLost(f"it printed more than {MAX_OUTPUT_BYTES >> 20} MiB in one round")
            if output.exit_code is None and self._connection.is_closed():
                raise SessionLost("the connection was lost")
            self._running = None
            text = output.data.decode("utf-8", "surrogateescape")
            answers.append(Answer(text, 255 if output.exit_code is None else output.exit_code, self._clock()))
        self.begun = True

    async def _channel(
        self, session: "_Output | _Shell", command: str, env: Mapping[str | bytes, str | bytes] | None = None
    ) -> "tuple[asyncssh.SSHClientChannel[bytes], asyncssh.SSHClientSession[bytes]]":
        return await self._connection.create_session(
            lambda: session,
            command,
            env=env,
            send_env=None,
            request_pty=False,
            x11_forwarding=False,
            encoding=None,
        )


class _Shell(asyncssh.SSHClientSession[bytes]):
    """The shell's end of the channel: one round at a time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._answers: Answers | None = None
        self._round: asyncio.Future[None] | None = None
        self._said = b""
        self.channel: asyncssh.SSHClientChannel[bytes] | None = None
        self.ended = asyncio.Event()

    @property
    def begun(self) -> bool:
        return self._answers is not None and self._answers.begun

    async def ask(self, script: bytes, count: int, mark: str, answers: list[Answer]) -> None:
        """One round. Raises SessionLost."""
        if self.ended.is_set() or self.channel is None:
            raise SessionLost("the shell has ended")
        self._answers = Answers(count, mark, self._clock, answers)
        self._round = asyncio.get_running_loop().create_future()
        try:
            self.channel.write(script)
            await self._round
        except OSError as error:
            raise SessionLost(f"the shell has ended: {error}") from error
        finally:
            self._round = None

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Take output of the shell; what it complains of is kept for the log."""
        if datatype is not None:
            self._said = (self._said + data)[-300:]
            return
        if self._answers is None or self._round is None or self._round.done():
            self._end("it printed something though nothing was asked")
            return
        try:
            self._answers.feed(data)
        except BadAnswer as error:
            self._end(str(error))
        else:
            if self._answers.complete:
                self._round.set_result(None)

    def eof_received(self) -> bool:
        """The shell has closed its output."""
        self._end("the shell ended")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel or the connection has ended."""
        self._end(f"the connection was lost: {exc}" if exc else "the shell ended")

    def _end(self, why: str) -> None:
        self.ended.set()
        if self._round is not None and not self._round.done():
            said = self._said.decode("ascii", "backslashreplace").strip()
            self._round.set_exception(SessionLost(f"{why} ({said})" if said else why))


class _Output(asyncssh.SSHClientSession[bytes]):
    """Collects what one command prints.

    Args:
        room: bytes at most; one more is kept, which says that it was too much
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self.data = bytearray()
        self.exit_code: int | None = None
        self.ended = asyncio.Event()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Take output; errors are dropped."""
        if datatype is None:
            self.data += data[: self._room + 1 - len(self.data)]
            if len(self.data) > self._room:
                self.ended.set()

    def exit_status_received(self, status: int) -> None:
        """The command has ended."""
        self.exit_code = status

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel or the connection has ended."""
        self.ended.set()


class Sessions:
    """Opens sessions.

    Args:
        clock: seconds, for the times of answers
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._connector = Connector()
        self._clock = clock

    @asynccontextmanager
    async def session(self, target: MonitorTarget) -> AsyncIterator[Session]:
        """A session that can be asked. Raises CannotConnect or HostKeyError, and TimeoutError never."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(target.connect_timeout_s):
                    connection = await stack.enter_async_context(self._connector.connection(target))
                    session = Session(connection, self._clock)
                    await session.open()
            except TimeoutError:
                raise CannotConnect(f"no session within {target.connect_timeout_s:g} s") from None
            yield session

    async def aclose(self) -> None:
        """Close what several sessions shared."""
        await self._connector.aclose()
