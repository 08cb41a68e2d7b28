"""Arms that a policy drives without ROS: LeRobot's robots and the simulated one, behind one small interface."""

from robo_core.lazy import attach_stub

__getattr__, __dir__, _ = attach_stub(__name__, __file__)
