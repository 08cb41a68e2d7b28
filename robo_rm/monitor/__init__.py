"""Is the task done, is it failing? Answers with a bound on false alarms, by conformal prediction."""

from robo_core.lazy import attach_stub

__getattr__, __dir__, _ = attach_stub(__name__, __file__)
