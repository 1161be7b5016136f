# SPDX-License-Identifier: MIT
"""hostbus's library: what every agent is made of."""
