"""Faults that the simulated arm can play, to rehearse with: what a driver, a camera or a clock may do wrong."""

from __future__ import annotations

import numpy as np

FAULTS = {
    "none": "everything works",
    "stale_joint_states": "joint states stop",
    "missing_joint": "the last joint is missing from the joint states",
    "nan_joint": "the first joint is not a number",
    "joint_jump": "the first joint jumps by 0.6",
    "zero_pose": "joint states are zero for a second, as of a driver before its first reading",
    "second_publisher": "another node publishes zeros as joint states, too",
    "robot_stop": "the robot stops by itself: it says so, and follows no command",
    "freedrive": "the robot says that it stopped, and a person moves it by hand",
    "hand_motion": "a person moves the arm, and the robot says nothing of it",
    "frozen_camera": "images go on coming but show one moment",
    "late_camera": "images stop",
    "paused_time": "stamps stand still, as simulated time does when it is paused",
    "time_jump": "stamps jump an hour ahead",
    "time_loop": "stamps run the same half second again and again, as a bag on repeat",
}
_LOOP = 0.5
_ZEROS = 1.0
_HAND_SPEED = 0.4
_HAND_REACH = 0.8


class FaultPlayer:
    """Bends what the arm tells according to the chosen fault."""

    def __init__(self) -> None:
        self.fault = "none"
        self._since = 0.0

    def choose(self, fault: str, now: float) -> None:
        """Begin a fault at ``now`` (s, the arm's clock); "none" ends it."""
        if fault != self.fault:
            self.fault, self._since = fault, now

    def stamp(self, now: float) -> float:
        """The moment that a message claims to be from."""
        if self.fault == "paused_time":
            return self._since
        if self.fault == "time_jump":
            return now + 3600.0
        if self.fault == "time_loop":
            return self._since + (now - self._since) % _LOOP
        return now

    def joints(
        self, names: tuple[str, ...], positions: np.ndarray, now: float
    ) -> tuple[tuple[str, ...], np.ndarray] | None:
        """The joint state to send at ``now`` (s, the arm's clock), or None for none."""
        if self.fault == "zero_pose" and now - self._since < _ZEROS:
            return names, np.zeros_like(positions)
        if self.fault == "stale_joint_states":
            return None
        if self.fault == "missing_joint":
            return names[:-1], positions[:-1]
        if self.fault in ("nan_joint", "joint_jump"):
            positions = positions.copy()
            positions[0] = np.nan if self.fault == "nan_joint" else positions[0] + 0.6
        return names, positions

    @property
    def no_images(self) -> bool:
        """Whether cameras are silent."""
        return self.fault == "late_camera"

    @property
    def frozen_images(self) -> bool:
        """Whether cameras show one moment again and again."""
        return self.fault == "frozen_camera"

    @property
    def stray_publisher(self) -> bool:
        """Whether another node speaks on the joint-state topic."""
        return self.fault == "second_publisher"

    @property
    def powered(self) -> bool:
        """What the robot's own stop signal says: whether it follows commands."""
        return self.fault not in ("robot_stop", "freedrive")

    @property
    def follows(self) -> bool:
        """Whether the arm really follows commands."""
        return self.powered and self.fault != "hand_motion"

    def by_hand(self, now: float) -> float:
        """How far (rad) a person has moved the first joint by ``now``."""
        if self.fault not in ("freedrive", "hand_motion"):
            return 0.0
        return min(_HAND_SPEED * (now - self._since), _HAND_REACH)
