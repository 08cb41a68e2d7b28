"""Environments in other processes do what environments in this one do, bit for bit, and report when they cannot."""

from __future__ import annotations

import functools
import json
import os
import signal
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from line_env import RefusingLine
from rl_runs import vector_env

from robo_core.errors import ConfigError, ModelError
from robo_policies import make_env
from robo_policies.rl.envs.macro_action import action_map
from robo_policies.rl.envs.process_vector_env import ProcessVectorEnv
from robo_policies.rl.envs.vector_env import MacroActionVectorEnv
from robo_rm.shaping.potential import TrueProgress

MAKE = functools.partial(make_env, "tidy_drawer/open", image_size=32, max_steps=10)


class MeanBrightness(TrueProgress):
    """A potential that reads images."""

    cameras = ("observation.images.front",)

    def score(self, observations, which):  # type: ignore[no-untyped-def]
        return observations["observation.images.front"].reshape(len(which), -1).mean(axis=1) / 255.0


def drawers(count: int, processes: int) -> MacroActionVectorEnv:
    actions = action_map(MAKE().action_space, 4, [0.2] * 6 + [np.inf])
    return vector_env(MAKE, count, actions, 5, MeanBrightness(), processes=processes)


@pytest.fixture
def drawers_in() -> Iterator[Callable[[int, int], MacroActionVectorEnv]]:
    made: list[MacroActionVectorEnv] = []

    def make(count: int, processes: int) -> MacroActionVectorEnv:
        made.append(drawers(count, processes))
        return made[-1]

    yield make
    for envs in made:
        envs.close()


def test_other_processes_do_what_this_one_does(drawers_in: Callable[[int, int], MacroActionVectorEnv]) -> None:
    here, there = drawers_in(3, 0), drawers_in(3, 2)
    for envs in (here, there):
        envs.reset()
    rng = np.random.default_rng(0)
    for _ in range(7):
        np.testing.assert_array_equal(here.observations(), there.observations())
        action = rng.uniform(-1, 1, (3, 7)).astype(np.float32)
        there.step_async(action)
        one, other = here.step(action), there.step_wait()
        for name, values in one.transitions.items():
            np.testing.assert_array_equal(values, other.transitions[name], err_msg=name)  # type: ignore[literal-required]
    snapshot = json.loads(json.dumps(here.snapshot()))
    assert any(snapshot["actions"])
    for envs in (there, drawers_in(3, 0)):
        envs.restore(snapshot)
        np.testing.assert_allclose(envs.observations(), here.observations(), atol=1e-6)


def test_some_environments_may_start_again_while_others_go_on(
    drawers_in: Callable[[int, int], MacroActionVectorEnv],
) -> None:
    here, there = drawers_in(3, 0), drawers_in(3, 2)
    for envs in (here, there):
        envs.reset()
        envs.step(np.zeros((3, 7), np.float32))
        envs.reset(np.array([2]))
    assert isinstance(there.envs, ProcessVectorEnv)
    assert len(there.envs.processes) == 2
    assert there.envs.get_attr("render_mode") == here.envs.get_attr("render_mode") == ("rgb_array",) * 3
    np.testing.assert_array_equal(here.observations(), there.observations())
    assert here.snapshot() == there.snapshot()


def test_what_an_environment_raises_reaches_the_learner(capfd: pytest.CaptureFixture[str]) -> None:
    envs = vector_env(RefusingLine, 2, action_map(RefusingLine().action_space, 1), 1, processes=2)
    try:
        envs.reset()
        envs.step(np.zeros((2, envs.action_size), np.float32))
        with pytest.raises(ConfigError, match="this far and no further"):
            envs.step(np.zeros((2, envs.action_size), np.float32))
    finally:
        envs.close()
    assert "Traceback" in capfd.readouterr().err


def test_a_process_that_dies_is_reported(drawers_in: Callable[[int, int], MacroActionVectorEnv]) -> None:
    envs = drawers_in(1, 1)
    envs.reset()
    assert isinstance(envs.envs, ProcessVectorEnv)
    os.kill(envs.envs.processes[0].pid or 0, signal.SIGKILL)
    with pytest.raises(ModelError, match="an environment's process died"):
        envs.step(np.zeros((1, 7), np.float32))


def test_more_processes_than_environments_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 environments in 2 processes"):
        drawers(1, 2)
