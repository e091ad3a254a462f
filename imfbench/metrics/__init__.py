"""Scorers (word errors, speaker similarity, predicted MOS, pitch variation, speed, memory), signatures, statistics.

Names are looked up in ``imfbench.registry.METRICS``; models are imported and loaded only when a scorer is used.
"""

from imfbench.metrics.base import Metric, MetricConfig, ScoreError, ScoreItem

__all__ = ["Metric", "MetricConfig", "ScoreError", "ScoreItem"]
