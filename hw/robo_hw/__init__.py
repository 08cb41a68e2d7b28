"""What runs on the robot's own computer: the robot contract and the safety core. Numpy only, no torch, no ROS."""

from robo_core.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
