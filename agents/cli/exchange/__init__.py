# SPDX-License-Identifier: MIT
"""`agent export` and `agent import`: archives to files and back."""
