# SPDX-License-Identifier: MIT
"""The errors of hostbus, one tree.

Misuse of the API raises Python's own errors (TypeError, ValueError, KeyError); what goes wrong between
agents raises one of these:

    HostbusError
    ├── NotConnected       there is no connection to the bus right now, or it could not be made
    │   └── ConnectTimeout  ... within the time allowed
    ├── Refused            the broker answered, and said no (permission, other arguments, absent queue)
    ├── PublishFailed      a message was not confirmed; it may or may not have been stored
    │   └── Unroutable      ... for sure not: no queue takes it
    ├── NotArchived        no archive that runs keeps the metric that was asked for
    ├── RpcError           the other agent answered with an error
    ├── RpcTimeout         the other agent did not answer in time
    ├── ConfigError        a configuration (file, option, RPC) is not valid
    ├── BadFrame           a data message cannot be decoded
    └── StorageError       an archive or store cannot be opened, read or written
        └── StorageBusy     ... for now: full disk, locked file; worth trying again
"""

import re

_NUMBERS = re.compile(r"[\d.]+")


def gist(error: BaseException) -> str:
    """What an error says but for its numbers: what tells a new cause from one that has come again.

    Times, counters and lengths differ each time that the same thing goes wrong.
    """
    return _NUMBERS.sub("", f"{type(error).__name__}: {error}")


class HostbusError(Exception):
    """What happened, to whom, and what would be right: always fit to be shown to a person."""


class NotConnected(HostbusError):
    """There is no connection to the bus."""


class ConnectTimeout(NotConnected):
    """The bus, or an agent that had to be there, was not reached in the time allowed."""


class Refused(HostbusError):
    """The broker refused an operation; `code` is AMQP's reply code (403, 404, 405, 406)."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class PublishFailed(HostbusError):
    """A message was not confirmed by the broker. It may have been stored all the same."""


class Unroutable(PublishFailed):
    """No queue takes a message that had to be taken."""


class NotArchived(HostbusError):
    """No archive keeps the metric, or none that does is running."""


class RpcError(HostbusError):
    """The other agent answered the request with an error."""


class RpcTimeout(HostbusError):
    """No answer to a request came in time."""


class ConfigError(HostbusError):
    """A configuration is not valid; the old one stays in force."""


class BadFrame(HostbusError):
    """A data message breaks a rule of the frame format."""


class StorageError(HostbusError):
    """A file that holds data cannot be opened, read or written."""


class StorageBusy(StorageError):
    """A store cannot be written for now (full disk, locked file). Nothing is lost: try again."""
