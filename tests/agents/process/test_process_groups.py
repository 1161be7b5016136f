# SPDX-License-Identifier: MIT
import os
import pwd
import subprocess
import sys
import threading

import pytest

from agents.base.parts import Parts
from agents.process.groups import Group, Identity, Members, ProcessGroup, group_of, user_number
from agents.process.procfs import Looker
from agents.process.source import ProcessConfig
from bus.errors import ConfigError
from tests.agents.process.process_tree import ProcessTree

NGINX = Identity(
    names=["nginx", "nginx: worker", "nginx"],
    cmdline="nginx: worker process --port 80",
    user=33,
    unit="nginx.service",
    cgroups=["/system.slice/nginx.service"],
)


@pytest.fixture
def tree(host) -> ProcessTree:
    return ProcessTree(host)


class Asked:
    """Members of a tree, and who is asked for how often."""

    def __init__(self, tree: ProcessTree, *groups: str | ProcessGroup) -> None:
        self.members = Members(map(group_of, groups), Parts("web1.process"), "test")
        self.tree = tree
        self._looker = Looker(str(tree.proc))

    def update(self, now_s: float = 1000.0) -> dict[int, list[str]]:
        """The groups of each process."""
        known = self.members.update(str(self.tree.proc), self._looker.look().processes, now_s, 20)
        return {pid: [group.word for group in who.groups] for pid, who in known.items()}


# -- configuration -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "word"),
    [("nginx", "nginx"), ("postgres*", "postgres"), ("kworker/*", "kworker_"), ("my app", "my_app"), ("[ab]c?", "abc")],
)
def test_a_glob_stands_for_a_group_that_is_called_by_it(text: str, word: str) -> None:
    assert group_of(text) == ProcessGroup(name=word, names=[text])


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        (["*"], "no name"),
        (["top*"], "no name"),
        (["nginx", "nginx*"], "two are called 'nginx'"),
        ([{"name": "top", "names": ["x"]}], "'top' cannot name a group"),
        ([{"name": "a.b", "names": ["x"]}], "'a.b' cannot name a group"),
        ([{"name": "a\n", "names": ["x"]}], "cannot name a group"),
        ([{"name": "web"}], "fits every process"),
        ([{"name": "web", "cmdline": "(a"}], "cmdline of group 'web' is no regular expression"),
        ([{"name": "web", "cmdline": "a" * 1025}], "1024"),
        ([{"name": "web", "names": [""]}], "length >= 1"),
        ([{"name": "web", "name_": "x"}], "name_"),
        ([{"names": ["x"]}], "name"),
        ([""], "length >= 1"),
        ([f"g{number}" for number in range(101)], "100"),
    ],
)
def test_a_group_that_makes_no_sense_is_refused_with_a_reason(groups: list[object], says: str) -> None:
    with pytest.raises(ConfigError, match=r"groups") as caught:
        ProcessConfig.load({"groups": groups})
    assert says in str(caught.value)


def test_groups_are_given_as_text_or_tables() -> None:
    config = ProcessConfig.load({"groups": ["nginx", {"name": "db", "user": "postgres"}]})
    assert config.all_groups == [ProcessGroup(name="nginx", names=["nginx"]), ProcessGroup(name="db", user="postgres")]


def test_groups_cannot_be_set_over_the_bus() -> None:
    assert "groups" in ProcessConfig.local_only


# -- who belongs to a group ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("criteria", "fits"),
    [
        ({"names": ["nginx"]}, True),
        ({"names": ["apache*", "ngi*"]}, True),
        ({"names": ["ngin"]}, False),
        ({"names": ["NGINX"]}, False),
        ({"cmdline": "--port (80|443)"}, True),
        ({"cmdline": "^--port"}, False),
        ({"user": "www-data"}, True),
        ({"user": "root"}, False),
        ({"user": "stranger"}, False),
        ({"unit": "nginx.service"}, True),
        ({"unit": "nginx"}, True),
        ({"unit": "ngin*"}, True),
        ({"unit": "ngin"}, False),
        ({"cgroup": "/system.slice/*"}, True),
        ({"cgroup": "/user.slice/*"}, False),
        ({"names": ["nginx"], "cmdline": "port", "user": "www-data", "unit": "nginx", "cgroup": "*"}, True),
        ({"names": ["nginx"], "user": "root"}, False),
        ({"names": ["nginx"], "cmdline": "nothing"}, False),
        ({"names": ["nginx"], "unit": "nothing"}, False),
        ({"names": ["nginx"], "cgroup": "nothing"}, False),
    ],
)
def test_a_process_must_fit_all_that_is_asked(criteria: dict[str, object], fits: bool) -> None:
    group = Group(ProcessGroup(name="g", **criteria))
    assert group.takes(NGINX, {"www-data": 33, "root": 0}) is fits


def test_a_process_without_a_unit_or_a_control_group_fits_no_glob_on_them() -> None:
    nobody = Identity(names=["x"])
    assert not Group(ProcessGroup(name="g", unit="*")).takes(nobody, {})
    assert not Group(ProcessGroup(name="g", cgroup="*")).takes(nobody, {})
    assert not Group(ProcessGroup(name="g", user="stranger")).takes(nobody._replace(user=0), {})


def test_a_unit_with_escapes_is_meant_literally() -> None:
    group = Group(ProcessGroup(name="g", unit="a\\x2db.service"))
    assert group.takes(Identity(names=["x"], unit="a\\x2db.service"), {})
    assert not group.takes(Identity(names=["x"], unit="a-b.service"), {})


def test_long_names_are_found_by_the_program_or_the_first_argument(tree) -> None:
    tree.start(10, "systemd-resolve", arguments=["/lib/systemd/systemd-resolved"], program="/x")
    tree.start(11, "systemd-resolve", arguments=["renamed"], program="/lib/systemd/systemd-resolved (deleted)")
    tree.start(12, "systemd-resolve", arguments=["-bash"], program="/x")
    assert Asked(tree, "systemd-resolved").update() == {10: ["systemd-resolved"], 11: ["systemd-resolved"], 12: []}


def test_a_process_may_be_in_many_groups_or_in_none(tree) -> None:
    tree.start(10, "one")
    tree.start(11, "two", arguments=["two", "and", "three"])
    tree.start(12, "three")
    cmdline = ProcessGroup(name="three-too", cmdline="(and|bin/)+.*three")
    assert Asked(tree, "one", "[ot]*", "two", cmdline).update() == {
        10: ["one", "ot"],
        11: ["ot", "two", "three-too"],
        12: ["ot", "three-too"],
    }
    assert Asked(tree, "one").update() == {10: ["one"], 11: [], 12: []}


def test_units_of_services(tree) -> None:
    tree.start(10, cgroup="1:name=systemd:/system.slice/db.service\n0::/\n")
    tree.start(11, cgroup="0::/kubepods/pod1\n")
    pods = ProcessGroup(name="pods", cgroup="/kubepods/*")
    assert Asked(tree, ProcessGroup(name="db", unit="db"), pods).update() == {10: ["db"], 11: ["pods"]}


def test_the_user_is_the_owner_of_the_directory(tree, monkeypatch) -> None:
    tree.start(10)
    owner = tree.proc.stat().st_uid
    mine, other = ProcessGroup(name="mine", user=str(owner)), ProcessGroup(name="other", user=str(owner + 1))
    assert Asked(tree, mine, other).update() == {10: ["mine"]}
    assert user_number(pwd.getpwuid(0).pw_name) == 0


def test_a_user_that_does_not_exist_costs_his_groups_and_one_line_and_is_asked_for_again(
    tree, caplog, monkeypatch
) -> None:
    tree.start(10)
    asked = Asked(tree, ProcessGroup(name="late", user="late-comer"), "work")
    assert asked.update(1000.0) == {10: ["work"]}
    assert asked.update(1001.0) == {10: ["work"]}
    assert len([message for message in caplog.messages if "no user 'late-comer'" in message]) == 1
    entry = pwd.struct_passwd(("late-comer", "x", tree.proc.stat().st_uid, 0, "", "", ""))
    monkeypatch.setattr(pwd, "getpwnam", lambda _: entry)
    assert asked.update(1050.0) == {10: ["work"]}
    assert asked.update(1061.0) == {10: ["late", "work"]}


# -- what is remembered --------------------------------------------------------------------------------


def test_files_are_read_once_while_a_process_keeps_its_name(tree) -> None:
    tree.start(10, arguments=["one"])
    asked = Asked(tree, ProcessGroup(name="one", cmdline="one"), ProcessGroup(name="two", cmdline="two"))
    assert asked.update() == {10: ["one"]}
    (tree.proc / "10/cmdline").write_bytes(b"two\0")
    assert asked.update(1001.0) == {10: ["one"]}
    tree.set(10, name="other")
    assert asked.update(1002.0) == {10: ["two"]}


def test_who_is_who_is_asked_again_after_a_while(tree) -> None:
    tree.start(10, arguments=["one"])
    asked = Asked(tree, ProcessGroup(name="one", cmdline="one"))
    asked.update(1000.0)
    (tree.proc / "10/cmdline").write_bytes(b"two\0")
    assert asked.update(1029.0) == {10: ["one"]}
    assert asked.update(1060.0) == {10: []}


def test_a_zombie_stays_in_its_groups(tree) -> None:
    tree.start(10)
    asked = Asked(tree, ProcessGroup(name="g", cmdline="work"))
    asked.update(1000.0)
    tree.set(10, state="Z")
    (tree.proc / "10/cmdline").write_bytes(b"")
    assert asked.update(1100.0) == {10: ["g"]}


def test_another_process_under_the_same_pid_is_another(tree) -> None:
    tree.start(10, arguments=["one"])
    asked = Asked(tree, ProcessGroup(name="one", cmdline="one"))
    asked.update(1000.0)
    tree.start(10, at_s=999.5, arguments=["two"])
    assert asked.update(1001.0) == {10: []}
    tree.end(10)
    assert asked.update(1002.0) == {}
    assert asked.members.known == {}


def test_a_thread_of_the_kernel_that_changes_its_name_is_not_read_anew(tree) -> None:
    tree.start(10, "kworker/0:1", flags=0x200000, arguments=[])
    asked = Asked(tree, "kworker*", ProcessGroup(name="events", names=["*-events"], cgroup="*"))
    assert asked.update() == {10: ["kworker"]}
    (tree.proc / "10/cgroup").unlink()
    tree.set(10, name="kworker/0:1-events")
    assert asked.update() == {10: ["kworker", "events"]}


def test_one_that_ends_while_it_is_asked_is_nobody(tree) -> None:
    tree.start(10)
    tree.start(11)
    (tree.proc / "10/cmdline").unlink()
    assert Asked(tree, "work").update() == {11: ["work"]}


def test_one_whose_command_line_hangs_costs_only_itself(tree) -> None:
    tree.start(10)
    tree.start(11)
    (tree.proc / "10/cmdline").unlink()
    os.mkfifo(tree.proc / "10/cmdline")
    asked = Asked(tree, "work")
    looker = Looker(str(tree.proc))
    known = asked.members.update(str(tree.proc), looker.look().processes, 1000.0, 2.0)
    assert list(known) == [11]
    with open(tree.proc / "10/cmdline", "wb"):  # lets the thread go
        pass
    for thread in threading.enumerate():
        if thread.name == "test: who is who":
            thread.join(20)


def test_without_groups_nobody_is_asked(tree) -> None:
    tree.start(10)
    assert Asked(tree).update() == {}


def test_a_configuration_loads_no_more_than_it_needs() -> None:
    code = (
        "import sys, agents.process; print([m for m in ('psutil', 'asyncssh', 'aiohttp', 'rich') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
