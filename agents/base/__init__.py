# SPDX-License-Identifier: MIT
"""What families are made of: files, rates, threads with deadlines, names, and parts that fail one by one."""
