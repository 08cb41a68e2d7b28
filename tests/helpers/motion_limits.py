"""Whether commands stay inside the limits of a contract, checked from outside by divided differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robo_hw import Command, RobotContract


def check_limits(contract: RobotContract, commands: Sequence[Command]) -> None:
    times = np.array([command.time for command in commands])
    values = positions = np.stack([command.positions for command in commands])
    low, high = contract.array("position").T
    assert ((positions >= low) & (positions <= high)).all()
    for order, limit in enumerate(("velocity", "acceleration", "jerk"), start=1):
        values = order * np.diff(values, axis=0) / (times[order:] - times[:-order])[:, None]
        assert np.abs(values / contract.array(limit)).max() <= 1 + 1e-6, limit
