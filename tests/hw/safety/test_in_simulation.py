"""The core in front of the simulated arm, and the page that describes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robo_hw import ActionChunk, ManualClock, RobotContract, SafetyCore, State

PAGE = Path(__file__).resolve().parents[3] / "docs" / "safety_core.md"


def test_the_example_of_the_page_runs():
    code = PAGE.read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, object] = {}
    exec(compile(code, str(PAGE), "exec"), names)  # our own page
    assert names["core"].state is State.RUNNING
    assert names["core"].fault is None


def test_the_scripted_expert_does_its_task_through_the_core():
    from robo_policies.envs.tidy_drawer.demonstrations import demonstrate
    from robo_policies.envs.tidy_drawer.env import TidyDrawerEnv
    from robo_policies.envs.tidy_drawer.progress import is_success

    env = TidyDrawerEnv()
    env.reset(seed=3)
    actions, done = [], False
    for action in demonstrate(env, "clean", np.random.default_rng(3)):
        actions.append(np.asarray(action, dtype=np.float64))
        _, _, done, truncated, _ = env.step(action)
        if done or truncated:
            break
    assert done, "the expert succeeds without the core"

    env.reset(seed=3)
    actions = np.array(actions)
    contract, clock = RobotContract.load("tidy_drawer"), ManualClock()
    core = SafetyCore(contract, clock, mode="real_time")
    seconds = 0.0
    for tick in range(round((len(actions) / 20 + 2) * 50)):
        now = clock.advance(0.02)
        core.observe(contract.joint_names, env.joint_positions(), stamp=now)
        for camera in contract.cameras:
            core.observe_camera(camera.name, tick, stamp=now)
        if tick < 6:
            continue  # until it may be armed
        if tick == 6:
            core.arm()
            began = core.status().consumed
        if tick % 20 == 6:
            first = min(round(core.status().consumed - began), len(actions) - 1)
            rows = actions[np.minimum(np.arange(first, first + 30), len(actions) - 1)]
            core.submit(ActionChunk(rows, contract.joint_names, core.epoch, tick, now))
        command = core.tick()
        assert core.fault is None
        env.apply(command.positions, round(0.02 / env.physics_seconds))
        seconds += 0.02
        if is_success(env.situation()):
            break
    assert is_success(env.situation())
    assert seconds < len(actions) / 20 + 1.0, "the limits of the contract let the expert run at full speed"
