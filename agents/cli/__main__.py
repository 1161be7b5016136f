# SPDX-License-Identifier: MIT
"""``python -m agents.cli`` is ``agent``."""

from agents.cli import main

main()
