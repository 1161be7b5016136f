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


def test_errors_that_differ_in_their_numbers_only_have_the_same_gist() -> None:
    times = [ValueError(f"web1.x: {time} is too late") for time in ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00.5Z")]
    assert errors.gist(times[0]) == errors.gist(times[1])
    assert errors.gist(ValueError("7 a")) != errors.gist(TypeError("7 a"))
    assert errors.gist(ValueError("7 a")) != errors.gist(ValueError("7 b"))
