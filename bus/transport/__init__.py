# SPDX-License-Identifier: MIT
"""What carries the messages: RabbitMQ, or the memory of this process, chosen by URL."""

from bus.transport.base import (
    DEFAULT_EXCHANGE,
    Binding,
    Consumer,
    Consumption,
    Delivery,
    Exchange,
    Message,
    OnDelivery,
    Queue,
    Transport,
)
from bus.transport.by_url import connect

__all__ = [  # noqa: RUF022 - grouped by meaning
    # a link to a broker
    "connect",
    "Transport",
    # what a broker holds
    "DEFAULT_EXCHANGE",
    "Exchange",
    "Queue",
    "Binding",
    # messages out
    "Message",
    # messages in
    "Consumption",
    "Consumer",
    "Delivery",
    "OnDelivery",
]
