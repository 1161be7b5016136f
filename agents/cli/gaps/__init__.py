# SPDX-License-Identifier: MIT
"""`agent gaps` and `agent check`: what is missing, and why."""
