"""Reward-aligned sample weights."""

from robo_core.lazy import attach_stub

__getattr__, __dir__, _ = attach_stub(__name__, __file__)
