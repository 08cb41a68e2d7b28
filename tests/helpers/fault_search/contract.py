"""Contracts of arms that nobody has built, for the prover."""

from __future__ import annotations

from typing import Any

import numpy as np

from robo_hw.contract.robot_contract import RobotContract


def random_contract(random: np.random.Generator) -> RobotContract:
    """An arm nobody has built: 1 to 7 joints with any limits, rates and deadlines that make sense together; some turn
    without end, some are told of on two topics, and what a fault commands differs."""

    def between(low: float, high: float) -> float:
        return float(np.exp(random.uniform(np.log(low), np.log(high))))

    control = between(25, 250)
    joints = []
    for i in range(int(random.integers(1, 8))):
        low, width = float(random.uniform(-6, 0)), between(0.5, 6)
        velocity = between(0.2, 8)
        acceleration = velocity * between(1, 20)
        joint: dict[str, Any] = {
            "name": f"joint_{i}", "kind": "revolute", "unit": "rad", "position": [low, low + width],
            "velocity": velocity, "acceleration": acceleration, "jerk": acceleration * between(2, 60),
            "following_error": 10.0, "state_jump": 10.0, "saturate": bool(random.uniform() < 0.2),
        }  # fmt: skip
        if random.uniform() < 0.5:
            joint["following_error"] = 6 * velocity / control + width * float(random.uniform(0.05, 0.5))
            joint["state_jump"] = width * float(random.uniform(0.05, 0.5))
        if random.uniform() < 0.15:
            del joint["position"], joint["saturate"]
            joint |= {"kind": "continuous", "velocity": min(velocity, 5.0), "action_jump": 3.0}
            joint |= {key: min(joint[key], 3.0) for key in ("following_error", "state_jump")}
        joints.append(joint)
    cameras = [
        {"name": f"camera_{i}", "topic": f"/camera_{i}", "width": 64, "height": 48, "rate": control,
         "degraded_after": 0.15, "stop_after": 0.3, "frozen_after": 0.5}
        for i in range(int(random.integers(0, 3)))
    ]  # fmt: skip
    split = len(joints) > 1 and random.uniform() < 0.3
    topics = [{"name": "/joint_states"}, {"name": "/gripper/joint_states"}] if split else {"name": "/joint_states"}
    return RobotContract.from_dict(
        {
            "contract": 2,
            "robot": "random",
            "joints": joints,
            "cameras": cameras,
            "topics": {
                "joint_states": topics,
                "command": {
                    "name": "/command",
                    "interface": str(random.choice(["joint_trajectory", "forward_command"])),
                },
            },
            "rates": {"control": control, "actions": min(between(4, 60), control), "joint_states": control},
            "deadlines": {"joint_states": 2.2 / control, "actions": between(0.3, 1.5), "chunk": 0.6,
                          "tick": 2.5 / control, "idle": between(0.3, 3)},
            "safety": {"cool_down": 0.5, "max_stop_time": between(0.25, 2), "reserve": float(random.uniform(0.2, 0.8)),
                       "arm_states": int(random.integers(5, 9)), "rearm_after_restart": bool(random.uniform() < 0.5)},
        }
    )  # fmt: skip
