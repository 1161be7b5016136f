# SPDX-License-Identifier: MIT
"""Points as JSON Lines in files that are added to and rotated, and the sink that writes them."""

from sinks.jsonl.sink import JsonConfig, JsonSink

__all__ = ["JsonConfig", "JsonSink"]
