# SPDX-License-Identifier: MIT
"""The sources, one file or folder per metric family, and the command line. Imports `bus` only.

`host` and `metric` are what a family is written with, `base` what it is made of; `foreign` reads the formats of other
programs; `cli` is the command line.
"""
