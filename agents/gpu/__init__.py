# SPDX-License-Identifier: MIT
"""NVIDIA GPUs."""

from agents.gpu.source import GpuSource

__all__ = ["GpuSource"]
