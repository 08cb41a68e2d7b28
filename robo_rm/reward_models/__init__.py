"""What every reward model is and does: the protocol, its checker, saving and loading."""

from robo_core.lazy import attach_stub

__getattr__, __dir__, _ = attach_stub(__name__, __file__)
