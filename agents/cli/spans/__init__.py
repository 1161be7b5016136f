# SPDX-License-Identifier: MIT
"""`agent run` and `agent diff`: what happened in a span of time."""
