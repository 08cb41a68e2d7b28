"""The cameras of a contract: whether each shows something new, in time, and with the joint state that goes with it."""

from __future__ import annotations

from robo_hw.contract.parts import Camera
from robo_hw.contract.robot_contract import RobotContract
from robo_hw.safety.watch import CameraWatch

_GOOD_FOR = 1.0
"""Seconds without a late image after which a camera counts as good again: at the edge it would change every frame."""


class Cameras:
    """All of them. Times are of the steady clock, s."""

    def __init__(self, contract: RobotContract) -> None:
        self._all: dict[str, tuple[Camera, CameraWatch]] = {
            camera.name: (camera, CameraWatch(f"camera {camera.name}", camera.stop_after / 2))
            for camera in contract.cameras
        }
        self._skew = contract.deadlines.skew
        self._keep = contract.deadlines.chunk + 1.0
        self._late: dict[str, float] = {}
        self.degraded: tuple[str, ...] = ()
        """Those that were late within the last second of motion."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._all

    def forget(self) -> None:
        """Start again with the next images."""
        for _, watch in self._all.values():
            watch.forget()
        self.begin()

    def begin(self) -> None:
        """The arm rests: what follows is another spell."""
        self._late.clear()
        self.degraded = ()
        self.moves()

    def moves(self) -> None:
        """The arm begins to move: from now on images have to change."""
        for _, watch in self._all.values():
            watch.still_while_moving = 0.0

    def image(self, now: float, name: str, digest: int, stamp: float | None, lenient: bool) -> str | None:
        """Note an image; returns why it does not count as fresh, or None. ``lenient``: take a sender's new clock."""
        watch = self._all[name][1]
        problem = watch.image(now, stamp, digest, self._keep)
        if problem is not None and lenient and "repeated" not in problem:
            watch.forget()
            problem = watch.image(now, stamp, digest, self._keep)
        return problem

    def unusable(self, now: float) -> list[str]:
        """Why the arm may not move by what the cameras show, one text each.

        A camera that froze has to show another image first; at rest it could not be distinguished from a still scene.
        """
        found = (watch.overdue(now, camera.stop_after, camera.frozen_after) for camera, watch in self._all.values())
        return [text for text in found if text is not None]

    def skewed(self, observed_at: float) -> list[str]:
        """Which cameras have no image that belongs to a joint state of ``observed_at``, one text each."""
        gaps = {watch.name: watch.gap(observed_at) for _, watch in self._all.values()}
        return [
            f"{name}: no image within {self._skew:g} s (deadlines.skew) of the joint state; the nearest is "
            f"{gap:.3f} s away"
            for name, gap in gaps.items()
            if gap > self._skew
        ]

    def watch(self, now: float, seconds: float) -> tuple[str | None, str | None]:
        """Look after a moving arm; ``seconds``: how long it was moving visibly since the last call.

        Returns why it has to stop, or None, and what to tell of cameras that became late or good, or None.
        """
        for camera, watch in self._all.values():
            watch.moved(seconds)
            overdue = watch.overdue(now, camera.stop_after, camera.frozen_after)
            if overdue is not None:
                return overdue, None
            if watch.age(now) > camera.degraded_after or watch.still_while_moving > camera.frozen_after / 2:
                self._late[camera.name] = now
            elif now - self._late.get(camera.name, now) >= _GOOD_FOR:
                del self._late[camera.name]
        if self._late.keys() == set(self.degraded):
            return None, None
        worse = len(self._late) > len(self.degraded)
        self.degraded = tuple(name for name in self._all if name in self._late)
        late = ", ".join(self.degraded)
        return None, f"cameras late: {late}; slower" if worse or late else "all cameras are back"
