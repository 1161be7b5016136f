# SPDX-License-Identifier: MIT
from agents.base.devices import DeviceWords, Globs, names_of


def test_without_globs_everything_is_wanted() -> None:
    assert "eth0" in Globs()


def test_an_exclude_beats_an_include() -> None:
    globs = Globs(["eth*", "lo"], ["eth1"])
    assert [name for name in ("eth0", "eth1", "lo", "wlan0") if name in globs] == ["eth0", "lo"]


def test_globs_do_not_ignore_case() -> None:
    assert "ETH0" not in Globs(["eth*"])


def test_two_devices_never_share_a_word_and_keep_theirs() -> None:
    words = DeviceWords()
    assert [words[device] for device in ("a b", "a_b", "a/b", "a_b", "a b")] == [
        "a_b",
        "a_b-2",
        "a_b-3",
        "a_b-2",
        "a_b",
    ]


def test_names_of_a_device_and_of_none() -> None:
    assert names_of("sda", ("reads", "writes")) == ("sda.reads", "sda.writes")
    assert names_of("", ("user",)) == ("user",)
