"""Are the boundaries of action chunks visible in the motion? Peak jerk at splices, against inside chunks.

    python benchmarks/splice_jerk.py --policy demo_out/policy_rabc --episodes 4 --json out/splice_jerk.json

A policy moves the simulated arm of tidy_drawer through the safety core at 50 Hz, in every schedule mode; a chunk is
spliced in four times a second. Jerk is the third divided difference of the commands, as a share of each joint's limit.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from robo_hw import ActionChunk, ManualClock, RobotContract, SafetyCore
from robo_hw.safety.schedule import MODES

PERIOD = 0.02
SECONDS = 30
ARM = 6  # joints; the gripper opens and shuts as fast as it may


def jerks(policy, contract: RobotContract, seed: int, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """The largest joint's share of its jerk limit at every tick: those that straddle a splice, and the others."""
    from robo_policies.envs.tidy_drawer.env import TidyDrawerEnv

    env = TidyDrawerEnv()
    env.reset(seed=seed)
    clock = ManualClock()
    core = SafetyCore(contract, clock, mode=mode)
    every = round(policy.execution_horizon / contract.rates.actions / PERIOD)
    commands, splices, waiting = [], [], None
    for tick in range(round(SECONDS / PERIOD) + contract.safety.arm_states):
        now = clock.advance(PERIOD)
        observation, info = env.observe()
        if info["success"]:
            break
        core.observe(contract.joint_names, observation["observation.state"].astype(np.float64), stamp=now)
        for camera in contract.cameras:
            core.observe_camera(camera.name, tick, stamp=now)
        if tick < contract.safety.arm_states:
            continue
        if tick == contract.safety.arm_states:
            core.arm()
        if waiting is not None and core.submit(waiting).accepted:  # a tick for the policy to think
            splices.append(tick)
        waiting = None
        if tick % every == 0:
            actions = np.asarray(policy.act(observation), dtype=np.float64)
            waiting = ActionChunk(actions, contract.joint_names, core.epoch, tick, now)
        command = core.tick()
        commands.append(command.positions)
        env.apply(command.positions, round(PERIOD / env.physics_seconds))
    share = np.abs(np.diff(np.stack(commands), 3, axis=0)) / PERIOD**3 / contract.array("jerk")
    share = share[:, :ARM].max(axis=1)
    near = np.zeros(len(share), bool)
    for tick in splices[1:]:  # the first starts from rest
        near[max(tick - 3, 0) : tick + 1] = True
    near[: splices[0] + 1] = False
    inside = ~near
    inside[: splices[0] + 1] = False
    return share[near], share[inside]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    from robo_core.console import print_table
    from robo_policies import load_policy

    policy, contract = load_policy(arguments.policy), RobotContract.load("tidy_drawer")
    rows, result = [], {}
    for mode in MODES:
        pairs = [jerks(policy, contract, 7_000_000 + i, mode) for i in range(arguments.episodes)]
        near, inside = (float(np.concatenate(part).max()) for part in zip(*pairs, strict=True))
        worst = max(float(a.max() / b.max()) for a, b in pairs)
        result[mode] = {"splices": near, "inside": inside, "ratio": near / inside, "worst_episode": worst}
        rows.append([mode, f"{near:.3f}", f"{inside:.3f}", f"{near / inside:.2f}", f"{worst:.2f}"])
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    columns = ["mode", "peak at splices", "inside chunks", "ratio", "worst episode's ratio"]
    print_table("jerk, as a share of the limit", columns, rows)


if __name__ == "__main__":
    main()
