"""Images and pages: film strips with progress under them, weights over time, charts, self-contained HTML."""

from robo_core.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
