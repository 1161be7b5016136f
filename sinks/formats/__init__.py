# SPDX-License-Identifier: MIT
"""Files that points go to and come from; each format is one file here, found by its entry point."""

from sinks.formats.copying import export_json, from_json, from_sqlite, to_json

__all__ = ["export_json", "from_json", "from_sqlite", "to_json"]
