"""What learns: SAC, multi-critic SAC, IQL, and the terms that are learned beside them."""

from robo_core.lazy import attach_stub

__getattr__, __dir__, _ = attach_stub(__name__, __file__)
