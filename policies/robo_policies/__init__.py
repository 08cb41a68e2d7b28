"""Simulated environments, scripted experts, policies trained from demonstrations, and their evaluation."""

from robo_core.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
