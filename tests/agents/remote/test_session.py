# SPDX-License-Identifier: MIT
"""Sessions with real servers: a shell where there is one, else a channel for each command."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agents.remote.connecting import CannotConnect
from agents.remote.script import Answer, SessionLost, TooLong
from agents.remote.session import Session
from agents.remote.target import MonitorTarget
from tests.agents.remote.conftest import sessions, until
from tests.services.sshd import Sshd

ONLY_COMMANDS = (
    'ForceCommand case "$SSH_ORIGINAL_COMMAND" in "env "*) echo no shell >&2; exit 1;; esac; '
    'eval "$SSH_ORIGINAL_COMMAND"'
)


@asynccontextmanager
async def opened(server: Sshd, **options: object) -> AsyncIterator[Session]:
    target = MonitorTarget(server.address, **options)  # type: ignore[arg-type]
    with sessions() as made:
        async with asyncio.timeout(30), made.session(target) as session:
            yield session


async def ask(session: Session, *commands: str) -> list[tuple[str, int]]:
    answers: list[Answer] = []
    await session.ask(list(commands), answers)
    return [(answer.output, answer.exit_code) for answer in answers]


def running(marker: str) -> list[str]:
    """The processes of this machine whose command line has a marker."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if marker in line:
            found.append(line)
    return found


async def test_all_commands_of_a_round_share_one_channel(ssh_home) -> None:
    server = ssh_home.server("MaxSessions 1")
    async with opened(server) as session:
        assert session.has_shell
        for _ in range(3):
            assert await ask(session, "echo 1", "false", "printf 3") == [("1\n", 0), ("", 1), ("3", 0)]
        assert await ask(session) == []
        assert session.begun
    assert server.log.count("Starting session") == 1


async def test_commands_speak_english(ssh_home) -> None:
    for settings in ((), (ONLY_COMMANDS, "AcceptEnv LC_*")):
        async with opened(ssh_home.server(*settings)) as session:
            assert await ask(session, "echo $LC_ALL") == [("C\n", 0)]


@pytest.mark.parametrize("shell", [True, False])
async def test_output_is_unchanged_whatever_it_is(ssh_home, shell: bool) -> None:
    server = ssh_home.server(*(() if shell else (ONLY_COMMANDS,)))
    async with opened(server) as session:
        assert session.has_shell is shell
        commands = ("printf '\\377\\0\\n'", "seq 1 20000", "cat", "echo hidden >&2; exit 9")
        found = await ask(session, *commands)
    assert found[0] == ("\udcff\0\n", 0)
    assert found[1] == ("".join(f"{number}\n" for number in range(1, 20001)), 0)
    assert found[2:] == [("", 0), ("", 9)]


async def test_what_a_host_greets_with_is_no_answer(ssh_home) -> None:
    greeting = "ForceCommand echo Welcome; echo; echo noise >&2; eval $SSH_ORIGINAL_COMMAND"
    async with opened(ssh_home.server(greeting)) as session:
        assert session.has_shell
        assert await ask(session, "echo 1") == [("1\n", 0)]


async def test_where_there_is_no_shell_each_command_has_a_channel(ssh_home) -> None:
    server = ssh_home.server(ONLY_COMMANDS, "MaxSessions 1")
    async with opened(server) as session:
        assert not session.has_shell
        assert await ask(session, "echo 1", "exit 3") == [("1\n", 0), ("", 3)]
        assert await ask(session, "echo 2") == [("2\n", 0)]


async def test_a_login_shell_that_is_none_of_posix_has_each_command_run_by_one_that_is(ssh_home) -> None:
    """`sh -f` finds no files, as fish and csh do not where there are none; without an input no shell stays."""
    server = ssh_home.server('ForceCommand sh -f -c "$SSH_ORIGINAL_COMMAND" </dev/null')
    async with opened(server) as session:
        assert not session.has_shell
        assert await ask(session, "echo /proc/self/sta[t]", "exit 3") == [("/proc/self/stat\n", 0), ("", 3)]


async def test_a_host_that_greets_at_each_command_has_it_run_by_sh_too(ssh_home) -> None:
    server = ssh_home.server('ForceCommand echo Welcome; sh -f -c "$SSH_ORIGINAL_COMMAND" </dev/null')
    async with opened(server) as session:
        assert await ask(session, "echo /proc/self/sta[t]") == [("Welcome\n/proc/self/stat\n", 0)]


async def test_a_host_that_allows_some_commands_is_given_them_as_they_are(ssh_home) -> None:
    server = ssh_home.server(
        'ForceCommand case "$SSH_ORIGINAL_COMMAND" in "echo 1") echo 1;; *) echo "no: $SSH_ORIGINAL_COMMAND";; esac'
    )
    async with opened(server) as session:
        assert await ask(session, "echo 1", "echo 2") == [("1\n", 0), ("no: echo 2\n", 0)]


async def test_sessions_begin_ever_slower_where_the_loop_is_late(ssh_home) -> None:
    with sessions() as made:
        loop, turns = asyncio.get_running_loop(), []

        async def turn() -> None:
            await made._pace()
            turns.append(loop.time())
            loop.call_later(0.001, time.sleep, 0.1)

        await asyncio.gather(turn(), turn())
    assert turns[1] - turns[0] > 0.15


async def test_a_key_that_is_good_for_one_command_gives_that(ssh_home) -> None:
    server = ssh_home.server()
    server.allow(ssh_home.key, 'restrict,command="echo fixed"')
    async with opened(server) as session:
        assert not session.has_shell
        assert await ask(session, "cat /etc/passwd") == [("fixed\n", 0)]


async def test_the_exit_code_may_come_long_after_the_output(ssh_home) -> None:
    async with opened(ssh_home.server(ONLY_COMMANDS)) as session:
        assert await ask(session, "exec >&- 2>&-; sleep 0.2; exit 3") == [("", 3)]


async def test_a_connection_that_is_lost_while_the_shell_is_tried_is_no_connection(ssh_home) -> None:
    with pytest.raises(SessionLost, match="lost"):
        async with opened(ssh_home.server("ForceCommand kill -9 $PPID; sleep 10")):
            pass


async def test_a_host_that_allows_no_session_is_not_connected_to(ssh_home) -> None:
    server = ssh_home.server("MaxSessions 0")
    with pytest.raises(CannotConnect, match="opens no session"):
        async with opened(server):
            pass


async def test_a_host_that_repeats_what_it_is_told_is_given_up(ssh_home) -> None:
    server = ssh_home.server("ForceCommand cat")
    with pytest.raises(CannotConnect, match="no session within 1 s"):
        async with opened(server, connect_timeout_s=1.0):
            pass


async def test_a_command_that_leaves_something_running_disturbs_nobody(ssh_home) -> None:
    async with opened(ssh_home.server()) as session:
        assert await ask(session, "(sleep 0.1; echo late; echo later) & echo 1") == [("1\n", 0)]
        await asyncio.sleep(0.3)
        assert await ask(session, "echo 2") == [("2\n", 0)]


@pytest.mark.parametrize("settings", [(), (ONLY_COMMANDS,)])
async def test_what_was_answered_before_a_command_hung_is_kept_and_what_hung_is_killed(ssh_home, settings) -> None:
    answers: list[Answer] = []
    sleep = f"sleep 40.{uuid.uuid4().int % 10**9}"
    async with opened(ssh_home.server(*settings)) as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await session.ask(["echo 1", sleep, "echo 3"], answers)
        assert [answer.output for answer in answers] == ["1\n"]
        assert session.begun
        session.give_up()
        await asyncio.wait_for(session.ended(), 10)
    if not settings:  # sshd kills nothing for a forced command
        await until(lambda: not running(sleep))


async def test_a_host_that_hangs_has_not_begun(ssh_home) -> None:
    server = ssh_home.server()
    async with opened(server) as session:
        await ask(session, "echo 1")
        server.freeze()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await ask(session, "echo 1")
        assert not session.begun
        server.thaw()


@pytest.mark.parametrize("settings", [(), (ONLY_COMMANDS,)])
async def test_a_command_that_prints_for_ever_ends_the_round(ssh_home, settings) -> None:
    answers: list[Answer] = []
    async with opened(ssh_home.server(*settings)) as session:
        with pytest.raises(TooLong):
            await session.ask(["echo 1", "yes", "echo 3"], answers)
        session.give_up()
        await asyncio.wait_for(session.ended(), 10)
    assert [answer.output for answer in answers] == ["1\n"]


@pytest.mark.parametrize("settings", [(), (ONLY_COMMANDS,)])
async def test_a_host_that_dies_in_the_middle_ends_the_round_at_once(ssh_home, settings) -> None:
    server = ssh_home.server(*settings)
    answers: list[Answer] = []
    async with opened(server) as session:
        task = asyncio.create_task(session.ask(["echo 1", "sleep 20"], answers))
        await until(lambda: answers)
        server.kill9()
        with pytest.raises(SessionLost):
            await task
        await asyncio.wait_for(session.ended(), 10)


async def test_a_shell_that_is_killed_ends_the_session(ssh_home) -> None:
    async with opened(ssh_home.server()) as session:
        with pytest.raises(SessionLost, match="the shell ended"):
            await ask(session, "echo 1", "kill -9 $$", "echo 3")
        await asyncio.wait_for(session.ended(), 10)
        with pytest.raises(SessionLost, match="ended"):
            await ask(session, "echo 1")


def test_too_much_is_a_loss_of_the_session() -> None:
    assert issubclass(TooLong, SessionLost)
