# SPDX-License-Identifier: MIT
"""One held session with a host: a shell that is given a script per round, or a channel for each command."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import asyncssh

from agents.base.worker import Worker
from agents.remote.connecting import CannotConnect, Connector, printable
from agents.remote.script import MAX_OUTPUT_BYTES, SHELL, Answer, Answers, SessionLost, TooLong, compose, in_sh
from agents.remote.target import MonitorTarget

logger = logging.getLogger(__name__)


KILL_S = 1.0
PROCESS_GROUP = "cut -d ' ' -f 5 /proc/$$/stat"

PACE_S = 0.02
"""Between the beginnings of two sessions: keys are exchanged on the event loop, 6 ms each, in steps below 4 ms."""


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
        self._takes_sh = False
        self._group = 0
        self._given_up = asyncio.Event()
        self._running: asyncssh.SSHClientChannel[bytes] | None = None
        self.begun = False
        """True once the host has answered in the current round."""

    @property
    def has_shell(self) -> bool:
        """False if every command has a channel of its own."""
        return self._shell is not None

    async def open(self) -> None:
        """Try the shell. Raises CannotConnect if the host opens no channel at all, and SessionLost."""
        shell = _Shell(self._clock)
        try:
            channel, _ = await self._channel(shell, SHELL)
        except (OSError, asyncssh.Error) as error:
            raise CannotConnect(f"the host opens no session: {printable(str(error))}") from error
        shell.channel = channel
        try:
            answers: list[Answer] = []
            await shell.ask(compose((PROCESS_GROUP,), self._mark), 1, self._mark, answers)
        except SessionLost:
            channel.close()
            if self._connection.is_closed():
                raise
            # The login shell may be none of POSIX (fish, csh); who allows no program but some, or only one, says no.
            said = (await self._run(in_sh(f"echo {self._mark}"), MAX_OUTPUT_BYTES)).data
            self._takes_sh = said.endswith(f"\n{self._mark}\n".encode()) or said == f"{self._mark}\n".encode()
        else:
            self._shell = shell
            group = answers[0].output.strip()
            self._group = int(group) if group.isascii() and group.isdigit() and len(group) < 9 else 0

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
        ends = [self._connection.wait_closed(), self._given_up.wait()]
        if self._shell is not None:
            ends.append(self._shell.ended.wait())
        tasks = [asyncio.create_task(end, name="end of a session") for end in ends]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def give_up(self) -> None:
        """The session is of no use any more: a command hangs, or the host does. Returns at once."""
        self._given_up.set()

    async def aclose(self) -> None:
        """If the session was given up, tell the host to end what it runs for us: what hangs may hang for ever."""
        if not self._given_up.is_set() or not self.begun:
            return
        with contextlib.suppress(OSError, asyncssh.Error, TimeoutError):
            async with asyncio.timeout(KILL_S):
                if self._running is not None:
                    self._running.send_signal("KILL")
                elif self._group > 1:
                    # Not a signal, which sshd refuses for root. The shell lives, so the number is still its own.
                    output = _Output(0)
                    await self._channel(output, f"kill -9 -{self._group}")
                    await output.ended.wait()

    async def _ask_each(self, commands: Sequence[str], answers: list[Answer]) -> None:
        room = MAX_OUTPUT_BYTES
        for command in commands:
            output = await self._run(in_sh(command) if self._takes_sh else command, room)
            room -= len(output.data)
            text = output.data.decode("utf-8", "surrogateescape")
            answers.append(Answer(text, 255 if output.exit_code is None else output.exit_code, self._clock()))
        self.begun = True

    async def _run(self, command: str, room: int) -> "_Output":
        """Run one command in a channel of its own. Raises SessionLost."""
        output = _Output(room)
        try:
            channel = self._running = await self._open_channel(output, command)
            channel.write_eof()
            self.begun = True
            await output.ended.wait()
        except (OSError, asyncssh.Error) as error:
            raise SessionLost(f"{type(error).__name__}: {printable(str(error))}") from error
        if len(output.data) > room:
            channel.abort()
            raise TooLong
        if output.exit_code is None and self._connection.is_closed():
            raise SessionLost("the connection was lost")
        self._running = None
        return output

    async def _open_channel(self, output: "_Output", command: str) -> "asyncssh.SSHClientChannel[bytes]":
        """A channel for a command. A host that allows one at a time may not have done with the one before."""
        for pause_s in (0.01, 0.05, 0.2):
            try:
                return (await self._channel(output, command, env={"LC_ALL": "C"}))[0]
            except asyncssh.ChannelOpenError:
                await asyncio.sleep(pause_s)
        return (await self._channel(output, command, env={"LC_ALL": "C"}))[0]

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
            return  # of a command that left something running
        try:
            self._answers.feed(data)
        except SessionLost as error:
            self._end(error)
        else:
            if self._answers.complete:
                self._round.set_result(None)

    def eof_received(self) -> bool:
        """The shell has closed its output."""
        self._end(SessionLost("the shell ended"))
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel or the connection has ended."""
        self._end(SessionLost(f"the connection was lost: {printable(str(exc))}" if exc else "the shell ended"))

    def _end(self, why: SessionLost) -> None:
        self.ended.set()
        if self._round is not None and not self._round.done():
            said = printable(self._said.decode("utf-8", "replace").strip())
            self._round.set_exception(SessionLost(f"{why}; it said: {said}") if said else why)


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

    def eof_received(self) -> bool:
        """The exit code is still to come."""
        return True

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
        worker: reads files
    """

    def __init__(self, clock: Callable[[], float], worker: Worker) -> None:
        self._connector = Connector(worker)
        self._clock = clock
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def session(self, target: MonitorTarget) -> AsyncIterator[Session]:
        """A session that can be asked. Raises CannotConnect or HostKeyError, and TimeoutError never."""
        await self._pace()
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(target.connect_timeout_s):
                    connection = await stack.enter_async_context(self._connector.connection(target))
                    session = Session(connection, self._clock)
                    await session.open()
            except TimeoutError:
                raise CannotConnect(f"no session within {target.connect_timeout_s:g} s") from None
            try:
                yield session
            finally:
                await session.aclose()

    async def _pace(self) -> None:
        """Wait for a turn; longer where the loop is late, or so many would be connecting that none is done in time."""
        now = asyncio.get_running_loop().time
        async with self._turn:
            due = now() + PACE_S
            await asyncio.sleep(PACE_S)
            await asyncio.sleep(now() - due)
