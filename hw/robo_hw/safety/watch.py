"""Watchdogs: how old is what we know, measured by the steady clock and by the sender's own stamps together.

A sample counts as fresh only as far as the sender's clock says that it is newer than the last. So a simulated clock
that is paused, a bag that loops, a message sent twice and a queue that delivers late all make the age grow, and the
deadline fires.
"""

from __future__ import annotations

import numbers
import zlib
from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_DRIFT = 5e-4
"""How much faster the sender's clock may run slow against ours (the rate at which time daemons slew) before it
counts."""


def frame_digest(image: npt.ArrayLike) -> int:
    """A number that changes with every pixel of an image; give it with the camera's observation."""
    return zlib.crc32(np.ascontiguousarray(image).data)


class StreamWatch:
    """The age of one stream of samples.

    The first sample fixes the offset between the sender's clock and ours; from then on a sample is as old as its
    stamp says, and never younger than its arrival. The offset only follows the quickest delivery seen, plus slow drift.
    """

    def __init__(self, name: str, tolerance: float) -> None:
        self.name = name
        self._tolerance = tolerance
        self._offset: float | None = None
        self._stamp: float | None = None
        self._seen: float | None = None
        self.received_at = -np.inf
        """Steady-clock time at which the newest sample came, s."""
        self.taken_at = -np.inf
        """Steady-clock time at which the newest sample was taken, s."""

    def forget(self) -> None:
        """Start again with the next sample, as when the arm is armed."""
        self._offset = self._stamp = self._seen = None
        self.received_at = self.taken_at = -np.inf

    def sample(self, now: float, stamp: float | None) -> str | None:
        """Note a sample received at ``now`` and taken at ``stamp`` by the sender's clock (s; None: it has none).

        Returns why the sample does not count as fresh, or None when it does.
        """
        if stamp is None:
            self.taken_at = self.received_at = now
            return None
        try:
            if isinstance(stamp, bool) or not isinstance(stamp, numbers.Real):
                raise TypeError
            stamp = float(stamp)
        except (TypeError, OverflowError):
            return f"{self.name}: a stamp of type {type(stamp).__name__} is not a time in seconds"
        if not np.isfinite(stamp):
            return f"{self.name}: stamp {stamp} is not finite"
        if self._offset is None or self._stamp is None:
            self._offset, self._stamp, self.received_at, self.taken_at = now - stamp, stamp, now, now
            return None
        again, self._seen = stamp in (self._seen, self._stamp), stamp
        if again:  # also of one that was not believed: a sender that stands still must never become right with time
            return f"{self.name}: stamp repeated"
        if stamp < self._stamp:
            return f"{self.name}: stamp went back by {self._stamp - stamp:.3f} s"
        drift = _DRIFT * max(now - self.received_at, 0.0)
        lead = self._offset - (now - stamp)  # how much quicker than the quickest delivery
        if lead > self._tolerance:
            return f"{self.name}: stamp jumped ahead by {lead:.3f} s"
        self._offset = min(self._offset + drift, now - stamp)
        self._stamp, self.received_at = stamp, now
        self.taken_at = stamp + self._offset
        return None

    def age(self, now: float) -> float:
        """Seconds since the newest sample was taken; infinite before the first."""
        return now - self.taken_at


class CameraWatch(StreamWatch):
    """A stream of images that must also change while the arm moves."""

    def __init__(self, name: str, tolerance: float) -> None:
        super().__init__(name, tolerance)
        self._digest: int | None = None
        self._taken: deque[float] = deque(maxlen=4096)
        self.still_while_moving = 0.0
        """Seconds of motion since the image last changed."""

    def forget(self) -> None:
        """Start again with the next image."""
        super().forget()
        self._digest = None
        self._taken.clear()
        self.still_while_moving = 0.0

    def image(self, now: float, stamp: float | None, digest: int, keep: float = 2.0) -> str | None:
        """Note an image by its digest; returns why it does not count as fresh, or None. ``keep``: seconds for which
        ``gap`` is asked."""
        if not isinstance(digest, (int, np.integer)):
            return f"{self.name}: a digest of type {type(digest).__name__} is not a whole number"
        if digest != self._digest:
            self._digest = digest
            self.still_while_moving = 0.0
        problem = self.sample(now, stamp)
        if problem is None:
            self._taken.append(self.taken_at)
            while self._taken[0] < now - keep:
                self._taken.popleft()
                if not self._taken:
                    break
        return problem

    def gap(self, time: float) -> float:
        """Seconds between ``time`` and the nearest image that is remembered; infinite without any."""
        return min((abs(taken - time) for taken in self._taken), default=np.inf)

    def overdue(self, now: float, stop_after: float, frozen_after: float) -> str | None:
        """Why the arm may not move by what this camera shows, or None."""
        age, still = self.age(now), self.still_while_moving
        if age == np.inf:
            return f"{self.name} has sent no image; start its driver"
        if age > stop_after:
            return f"{self.name} is {age:.3f} s old, the limit is {stop_after:g} s"
        if still > frozen_after:
            return f"{self.name} has shown the same image for {still:.3f} s of motion, the limit is {frozen_after:g} s"
        return None

    def moved(self, seconds: float) -> None:
        """Tell that the arm was commanded to move for so long."""
        self.still_while_moving += seconds


class JointOrder:
    """Takes the contract's joints, in the contract's order, out of messages that have them in any order."""

    def __init__(self, joints: tuple[str, ...]) -> None:
        self._joints = joints
        self._names: tuple[str, ...] = ()
        self._columns: np.ndarray = np.zeros(0, dtype=np.intp)

    def take(self, names: Sequence[str], values: npt.ArrayLike) -> tuple[np.ndarray | None, str | None, str]:
        """The values (D,) float64 of our joints; or None, the joint at fault where there is one, and what is wrong."""
        names = tuple(names)
        if names != self._names:
            for joint in self._joints:
                if names.count(joint) != 1:
                    problem = "missing from" if joint not in names else "given twice in"
                    return None, joint, f"{joint} is {problem} the joint state"
            self._columns = np.array([names.index(joint) for joint in self._joints], dtype=np.intp)
            self._names = names
        try:
            numbers = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            return None, None, f"the joint state holds something that is not a number ({error})"
        if numbers.shape != (len(names),):
            return None, None, f"the joint state has shape {numbers.shape} for {len(names)} names"
        taken = numbers[self._columns]
        finite = np.isfinite(taken)
        if not finite.all():
            worst = int(np.argmin(finite))
            return None, self._joints[worst], f"{self._joints[worst]} is {taken[worst]} in the joint state"
        return taken, None, ""
