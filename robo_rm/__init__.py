"""Reward models for robot demonstrations: labels, models, training, scoring, metrics, weights and shaping."""

from robo_core.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
