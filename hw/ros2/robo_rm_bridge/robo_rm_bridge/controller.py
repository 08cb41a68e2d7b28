"""What a robot's controller does with commands: interpolate, hold, and give up on silence.

Stands in for ros2_control's `joint_trajectory_controller` and `forward_command_controller` in front of a simulated arm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


class CommandFollower:
    """Joint targets over time from trajectories or single positions.

    ``start`` (D,): where it rests. ``timeout``: seconds without a command, counted from the end of the last trajectory
    (as `cmd_timeout` is), after which it holds where the arm is and counts the command as lost.
    """

    def __init__(self, joints: Sequence[str], start: np.ndarray, timeout: float) -> None:
        self._joints = tuple(joints)
        self._timeout = timeout
        self.timeouts = 0
        """How often commands have stopped coming."""
        self.refused = 0
        """Commands that were not usable."""
        self.silent = True
        """Whether nothing is being commanded."""
        self.hold(start)

    def hold(self, positions: np.ndarray) -> None:
        """Rest at ``positions`` (D,), forgetting every command."""
        self._times: np.ndarray = np.zeros(1)
        self._points = np.array(positions, dtype=np.float64)[None]
        self._speeds = np.zeros_like(self._points)
        self._last = -np.inf

    def trajectory(
        self,
        now: float,
        joints: Sequence[str],
        times: npt.ArrayLike,
        positions: npt.ArrayLike,
        velocities: npt.ArrayLike | None = None,
    ) -> str | None:
        """Follow points (N, D) that are due ``times`` (N,) s from now; returns why it was refused, or None."""
        points = np.asarray(positions, dtype=np.float64)
        moments = np.asarray(times, dtype=np.float64)
        speeds = np.zeros_like(points) if velocities is None else np.asarray(velocities, dtype=np.float64)
        problem = self._problem(joints, moments, points, speeds)
        if problem is not None:
            self.refused += 1
            return problem
        order = [list(joints).index(joint) for joint in self._joints]
        here, speed = self.target(now)
        self._times = now + np.concatenate([[0.0], moments])
        self._points = np.concatenate([here[None], points[:, order]])
        self._speeds = np.concatenate([speed[None], speeds[:, order]])
        self._last, self.silent = now + float(moments[-1]), False
        return None

    def positions(self, now: float, values: npt.ArrayLike) -> str | None:
        """Go to ``values`` (D,) at once; returns why it was refused, or None."""
        target = np.asarray(values, dtype=np.float64)
        if target.shape != (len(self._joints),) or not np.isfinite(target).all():
            self.refused += 1
            return f"{target.shape} positions, or one that is not finite; {len(self._joints)} are needed"
        self.hold(target)
        self._last, self.silent = now, False
        return None

    def target(self, now: float) -> tuple[np.ndarray, np.ndarray]:
        """Wanted positions and velocities, each (D,): cubic between points, at rest behind the last."""
        if now >= self._times[-1]:
            return self._points[-1].copy(), np.zeros(self._points.shape[1])
        # The simulation may lag behind the moment at which the command came.
        i = max(int(np.searchsorted(self._times, now, side="right")), 1)
        span = self._times[i] - self._times[i - 1]
        s = max(now - self._times[i - 1], 0.0) / span
        (p, q), (v, w) = self._points[i - 1 : i + 1], self._speeds[i - 1 : i + 1] * span
        a, b = 3 * (q - p) - 2 * v - w, 2 * (p - q) + v + w
        return p + s * (v + s * (a + s * b)), (v + s * (2 * a + s * 3 * b)) / span

    def watch(self, now: float, measured: np.ndarray) -> bool:
        """Notice silence: hold ``measured`` (D,). Returns True once for each time that commands stopped coming."""
        if self.silent or now - self._last <= self._timeout:
            return False
        self.timeouts += 1
        self.silent = True
        self.hold(measured)
        return True

    def _problem(self, joints: Sequence[str], times: np.ndarray, points: np.ndarray, speeds: np.ndarray) -> str | None:
        if sorted(joints) != sorted(self._joints):
            return f"joints {', '.join(joints) or 'none'}; {', '.join(self._joints)} are needed"
        if points.ndim != 2 or not len(points) or points.shape != (len(times), len(self._joints)):
            return f"points of shape {points.shape} for {len(times)} times"
        if speeds.shape != points.shape:
            return f"velocities of shape {speeds.shape}, points of shape {points.shape}"
        if not (np.isfinite(points).all() and np.isfinite(speeds).all() and np.isfinite(times).all()):
            return "a number is not finite"
        if times[0] <= 0 or (np.diff(times) <= 0).any():
            return "times do not grow from above zero"
        if speeds[-1].any():
            return "the last point has a velocity; the arm could not rest there"
        return None
