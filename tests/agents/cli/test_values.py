# SPDX-License-Identifier: MIT
"""``key=value`` arguments."""

import pytest

from agents.cli.values import assignments
from bus.errors import ConfigError


def test_values_are_json_and_else_text():
    given = ["period=0.2", 'devices=["sd*", "nvme*"]', "prefix=web1", "align=true", "path=a=b.db", "max_delay=null"]
    assert assignments(given) == {
        "period": 0.2,
        "devices": ["sd*", "nvme*"],
        "prefix": "web1",
        "align": True,
        "path": "a=b.db",
        "max_delay": None,
    }


def test_keys_that_want_text_get_it():
    assert assignments(["prefix=123"], {"prefix"}) == {"prefix": "123"}


@pytest.mark.parametrize("text", ["period", "=5", ""])
def test_what_is_not_an_assignment_is_named(text):
    with pytest.raises(ConfigError, match="is not key=value, like period"):
        assignments([text])
