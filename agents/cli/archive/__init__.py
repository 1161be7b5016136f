# SPDX-License-Identifier: MIT
"""`agent archive`: an archive's inside."""
