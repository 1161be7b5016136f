# SPDX-License-Identifier: MIT
"""`agent up`: the whole of hostbus in one process."""
