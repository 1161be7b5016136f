# SPDX-License-Identifier: MIT
"""Temperatures, fans, voltages, currents, power, energy and batteries."""

from agents.sensors.source import SensorsSource

__all__ = ["SensorsSource"]
