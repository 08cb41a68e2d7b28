"""Training a reward model on a demo store: data, windows, budget, resume."""

from robo_core.lazy import attach_stub

__getattr__, __dir__, _ = attach_stub(__name__, __file__)
