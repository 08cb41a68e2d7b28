"""Writes LeRobot datasets v3.0."""
