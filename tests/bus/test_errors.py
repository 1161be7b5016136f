# SPDX-License-Identifier: MIT
"""The tree of errors."""

import inspect
import re

from bus import errors


def test_every_error_is_in_the_tree_at_the_top_of_the_module() -> None:
    drawn = set(re.findall(r"[A-Z][A-Za-z]+", errors.__doc__ or ""))
    classes = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}
    assert set(classes) <= drawn
    assert all(issubclass(kind, errors.HostbusError) and kind.__doc__ for kind in classes.values())


def test_what_is_passing_can_be_caught_as_what_it_is_a_kind_of() -> None:
    assert issubclass(errors.ConnectTimeout, errors.NotConnected)
    assert issubclass(errors.StorageBusy, errors.StorageError)


def test_a_refusal_carries_the_code_of_the_broker() -> None:
    refusal = errors.Refused("queue a: other arguments", 406)
    assert (str(refusal), refusal.code) == ("queue a: other arguments", 406)
