"""Policy-invariant reward shaping: the core, the modes to compare it with, potentials, and the checker."""

from robo_core.lazy import attach_stub

__getattr__, __dir__, _ = attach_stub(__name__, __file__)
