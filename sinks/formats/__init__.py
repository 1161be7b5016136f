# SPDX-License-Identifier: MIT
"""Files that points go to and come from; each format is one file here, found by its entry point."""
