# SPDX-License-Identifier: MIT
"""Metrics of other programs: in which formats they come, and how they become metrics of a source."""
