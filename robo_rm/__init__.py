"""Reward models for robot demonstrations: labels, models, training, scoring, metrics, weights and shaping."""

__version__ = "0.1.0"
