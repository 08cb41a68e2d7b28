"""Whether an arm is in a pose from which it may be armed."""

from __future__ import annotations

import numpy as np

from robo_hw.contract import RobotContract

_AT_REST = 0.05
"""Share of a joint's velocity limit below which it counts as resting."""


def pose_reasons(contract: RobotContract, measured: np.ndarray, velocities: np.ndarray | None) -> list[str]:
    """Why joints at ``measured`` (D,), moving at ``velocities`` (D,) where known, may not be armed; empty: they may."""
    reasons = []
    for i, joint in enumerate(contract.joints):
        low, high = joint.position
        tolerance = joint.arm_tolerance
        if not low - tolerance <= measured[i] <= high + tolerance:
            reasons.append(f"{joint.name} is at {measured[i]:.4g}, outside [{low:.4g}, {high:.4g}]; move it by hand")
        if velocities is not None and abs(velocities[i]) > _AT_REST * joint.velocity:
            reasons.append(f"{joint.name} moves at {velocities[i]:.3g} {joint.unit}/s; let it rest")
    return reasons
