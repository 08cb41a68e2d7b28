"""Progress labels from stage boundaries, and the plan of training windows."""

from robo_core.lazy import attach_stub

__getattr__, __dir__, _ = attach_stub(__name__, __file__)
