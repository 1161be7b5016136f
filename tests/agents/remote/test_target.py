# SPDX-License-Identifier: MIT
import pytest

from agents.remote.target import Address, HostWords, MonitorTarget


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("db1", Address("db1")),
        ("db1.example.org", Address("db1.example.org")),
        ("root@db1", Address("db1", "root")),
        ("root@db1:2222", Address("db1", "root", 2222)),
        ("10.0.0.5:22", Address("10.0.0.5", "", 22)),
        ("::1", Address("::1")),
        ("root@fe80::1%eth0", Address("fe80::1%eth0", "root")),
        ("[::1]:2222", Address("::1", "", 2222)),
        ("root@[::1]", Address("::1", "root")),
        ("ssh://root@db1:2222", Address("db1", "root", 2222)),
    ],
)
def test_addresses_as_people_write_them(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@db1",
        "-oProxyCommand=evil",
        "root@-oProxyCommand=evil",
        "-l@db1",
        "db1 ",
        "db1:",
        "db1:0",
        "db1:65536",
        "db1:port",
        "db1:22:22",
        "a b",
        "db1\nHost *",
        "root@db1;reboot",
        "[::1",
        "[nonsense]:22:1",
        "[no:address]:22",
    ],
)
def test_what_is_no_address_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        Address.parse(text if text != "db1 " else "db 1")


def words(*targets: MonitorTarget, known: HostWords | None = None) -> dict[str, str]:
    return {word: str(target.address) for word, target in (known or HostWords()).of(targets).items()}


def test_a_host_is_called_by_its_first_label_or_its_address() -> None:
    found = words(MonitorTarget("root@db1.example.org:22"), MonitorTarget("10.0.0.5"), MonitorTarget("::1"))
    assert list(found) == ["db1", "10_0_0_5", "__1"]


def test_two_hosts_with_one_label_have_two_words() -> None:
    found = words(MonitorTarget("db1.a"), MonitorTarget("db1.b"), MonitorTarget("x@db1.b"))
    assert found == {"db1": "db1.a", "db1-2": "db1.b", "db1-3": "x@db1.b"}


def test_a_name_that_was_given_goes_before_those_that_were_not() -> None:
    assert words(MonitorTarget("db1.a"), MonitorTarget("other", name="db1")) == {"db1": "other", "db1-2": "db1.a"}


def test_words_stay_when_hosts_come_and_go() -> None:
    known = HostWords()
    a, b = MonitorTarget("db1.a"), MonitorTarget("db1.b")
    assert words(a, b, known=known) == {"db1": "db1.a", "db1-2": "db1.b"}
    assert words(b, known=known) == {"db1-2": "db1.b"}
    assert words(b, a, known=known) == {"db1-2": "db1.b", "db1": "db1.a"}
    assert words(b, MonitorTarget("x", name="db1-2"), known=known) == {"db1-2": "x", "db1-3": "db1.b"}


@pytest.mark.parametrize(
    "targets",
    [
        [MonitorTarget("a", name="x"), MonitorTarget("b", name="x")],
        [MonitorTarget("root@a"), MonitorTarget("root@a")],
    ],
)
def test_a_host_that_is_listed_twice_is_an_error(targets: list[MonitorTarget]) -> None:
    with pytest.raises(ValueError, match="listed twice"):
        HostWords().of(targets)


def test_a_host_that_is_listed_twice_may_have_two_names() -> None:
    assert list(words(MonitorTarget("a", name="x"), MonitorTarget("a"), MonitorTarget("a", name="y"))) == [
        "x",
        "y",
        "a",
    ]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"name": "db1.x"}, "one word"),
        ({"name": "db 1"}, "one word"),
        ({"core_count": 0}, "core_count"),
        ({"jump": ("bastion", "-x")}, "-x"),
        ({"connect_timeout_s": 0.0}, "connect_timeout_s"),
    ],
)
def test_a_target_says_what_is_wrong_with_it(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        MonitorTarget("db1", **options)  # type: ignore[arg-type]
