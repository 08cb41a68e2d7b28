"""Checks of a demo store: that its files are whole, and that what they say is plausible."""

from robo_core.lazy import attach_stub

__getattr__, __dir__, _ = attach_stub(__name__, __file__)
