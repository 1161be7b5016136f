# SPDX-License-Identifier: MIT
"""`agent history`: what an archive has of metrics."""
