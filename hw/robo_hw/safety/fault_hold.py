"""What is commanded in a fault once the arm rests: nothing, or where the arm really is."""

from __future__ import annotations

import numpy as np

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.observation.joint_states import JointStates, wrapped
from robo_hw.safety.arming import unread_reasons


class FaultHold:
    """``silent`` leaves the arm to a controller that holds by itself.

    ``follow_measured`` is for controllers that keep the last command permanently: it holds, and when the arm is moved
    away (by hand, in freedrive, with its power off) takes the pose where it is instead, so that nothing leaps when the
    power comes back. Held poses are never further than ``following_error`` from the measured one. It does not
    follow every hair: a joint that sags a little under its load would then sink all the way. It
    follows what a hand can do, not what only a driver can: after a leap, a pose of zeros or two that contradict each
    other nothing is commanded.
    """

    def __init__(self, contract: RobotContract) -> None:
        self._contract = contract
        self._follows = contract.safety.in_fault == "follow_measured"
        self._low, self._high = contract.array("position").T
        self._tolerance = contract.array("arm_tolerance")
        self._leash = contract.array("following_error")
        self._deadline = contract.deadlines.joint_states
        self._turning = np.array([joint.kind == "continuous" for joint in contract.joints])
        self._held: np.ndarray | None = None
        self._allowed = False

    def after_stop(self, position: np.ndarray | None, measured: np.ndarray) -> np.ndarray | None:
        """The last pose (D,) of a stop, to be sent and perhaps held; None where there is none, or the arm has not
        followed it: it would be pulled there permanently."""
        held = position if position is not None and self.near(position, measured) else None
        self.begin(held)
        return held

    def begin(self, held: np.ndarray | None = None) -> None:
        """The arm rests in a fault, commanded to ``held`` (D,), or to nothing that may be believed."""
        self._allowed, self._held = self._follows, held

    def let_go(self) -> None:
        """Command nothing any more until the next fault."""
        self._allowed, self._held = False, None

    def near(self, position: np.ndarray, measured: np.ndarray, fraction: float = 1.0) -> bool:
        """Whether ``position`` (D,) lies within ``fraction`` of the following error of ``measured`` (D,)."""
        gap = position - measured
        gap = np.abs(np.where(self._turning, wrapped(gap), gap))
        return bool((gap <= fraction * self._leash).all())

    def position(self, now: float, states: JointStates) -> np.ndarray | None:
        """The pose (D,) to command now, or None for nothing."""
        if not self._allowed or states.age(now) > self._deadline:
            return None
        if states.leapt or states.contradicted(now):
            return None  # a driver that restarted, an echo of the command: which pose is the arm's, nobody can say
        measured, held = states.measured, self._held
        if held is not None and self.near(held, measured, 0.5):
            return held
        if not states.believed(now):
            # The first states after a silence, or after a step that a hand may have made.
            return held if held is not None and self.near(held, measured) else None
        if unread_reasons(self._contract, states):
            return None
        target = np.clip(measured, self._low, self._high)
        self._held = target if (np.abs(target - measured) <= self._tolerance).all() else None
        return self._held
