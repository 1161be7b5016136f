# SPDX-License-Identifier: MIT
"""Metrics of whatever speaks to Prometheus."""

from agents.prometheus.source import PrometheusSource

__all__ = ["PrometheusSource"]
