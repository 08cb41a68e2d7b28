"""Arms that a policy drives without ROS: LeRobot's robots and the simulated one, behind one small interface."""
