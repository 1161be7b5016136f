# SPDX-License-Identifier: MIT
"""Where agents keep what must survive them, if nobody says where."""

import os
from pathlib import Path

from bus.errors import StorageError


def state_folder() -> Path:
    """This user's folder for state, as the XDG base directory specification has it."""
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if os.path.isabs(state) else Path.home() / ".local/state") / "hostbus"


def state_file(name: str) -> str:
    """A file in that folder."""
    return str(state_folder() / name)


def make_state_folder(option: str) -> None:
    """Make that folder, for its owner alone. Raises StorageError that names the option that leads elsewhere."""
    try:
        state_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{state_folder()} cannot be made ({error.strerror}): set XDG_STATE_HOME, or name another place by {option}"
        ) from error
