# SPDX-License-Identifier: MIT
"""Charts of history: in the terminal, and as a page for the browser."""
