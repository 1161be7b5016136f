# SPDX-License-Identifier: MIT
"""The consumers: archives and what shows or judges points. Imports `bus` only."""
