"""Demo stores: robot demonstrations that survive crashes and read fast, with importers and checks. Needs no torch."""

from robo_core.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
