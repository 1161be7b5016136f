# SPDX-License-Identifier: MIT
"""The sources, one file per metric family, and the command line. Imports `bus` only."""
