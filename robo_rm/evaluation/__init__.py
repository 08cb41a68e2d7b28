"""Evaluating a reward model: metrics, advice, probe clips, report."""

from robo_core.lazy import attach_stub

__getattr__, __dir__, _ = attach_stub(__name__, __file__)
