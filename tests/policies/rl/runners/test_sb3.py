"""Stable-Baselines3's learners on macro-actions: they get the right transitions, learn, and resume exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from line_env import LineEnv
from rl_runs import line_context

from robo_core.errors import ConfigError, ModelError
from robo_policies.rl.envs.shaped_reward import ShapedReward
from robo_policies.rl.runners.runner import CRASH_FILE
from robo_policies.rl.runners.sb3 import Sb3Algorithm, Sb3Runner
from robo_policies.rl.settings import LearnerSettings, LearningSettings, Sb3PpoSettings, Sb3SacSettings
from robo_rm.shaping.potential import TrueProgress
from robo_rm.shaping.potential_based import shaped_reward

LOOP = LearningSettings(
    action_repeat=4,
    num_envs=2,
    gradient_steps=2,
    learning_starts=20,
    buffer_size=2000,
    evaluate_every=400,
    evaluation_episodes=4,
)
SAC = Sb3SacSettings(width=32, batch_size=64, learning_rate=3e-3, tau=0.02, temperature=0.02)
PPO = Sb3PpoSettings(width=16, batch_size=16, rollout_steps=16, epochs=2, learning_rate=3e-3)


def learning(folder: Path, settings: LearnerSettings, make: Any = LineEnv) -> Sb3Runner:
    return Sb3Runner(line_context(folder, LOOP, make=make), settings)


def nothing(*_: Any) -> None:
    """No callback."""


def test_its_replay_buffer_holds_the_shaped_rewards_and_the_last_observations(tmp_path: Path) -> None:
    run = learning(tmp_path, SAC)
    run.run(400, nothing)
    buffer, ours = run.algorithm.model.replay_buffer, run.replay
    assert ours is not None
    count = buffer.pos * LOOP.num_envs
    assert count == len(ours)
    held = {n: getattr(buffer, n)[: buffer.pos].reshape(count, -1) for n in ("observations", "next_observations")}
    rewards, dones, timeouts = (getattr(buffer, n)[: buffer.pos].ravel() for n in ("rewards", "dones", "timeouts"))
    np.testing.assert_allclose(
        held["observations"], np.c_[ours.floats("observation"), ours.floats("potential")], atol=1e-6
    )
    np.testing.assert_allclose(
        held["next_observations"], np.c_[ours.floats("next_observation"), ours.floats("next_potential")], atol=1e-6
    )
    wanted = shaped_reward(
        ours.floats("task_reward"),
        ours.floats("potential"),
        ours.floats("next_potential"),
        ours.flags("terminated"),
        LOOP.discount,
        ours.numbers("steps"),
    )
    np.testing.assert_allclose(rewards, wanted, atol=1e-5)
    np.testing.assert_array_equal(dones.astype(bool), ours.flags("terminated") | ours.flags("truncated"))
    np.testing.assert_array_equal(timeouts.astype(bool), ours.flags("truncated"))
    assert ours.flags("truncated").any()


@pytest.mark.parametrize(
    "settings",
    [pytest.param(SAC, marks=pytest.mark.slow), replace(PPO, rollout_steps=64, batch_size=64, epochs=10)],
    ids=["sac", "ppo"],
)
def test_it_learns_a_tiny_task(tmp_path: Path, settings: LearnerSettings) -> None:
    curve = learning(tmp_path, settings).run(2400, nothing)
    assert max(point["success"] for point in curve[-3:]) == 1.0


@pytest.mark.parametrize("settings", [SAC, PPO], ids=["sac", "ppo"])
def test_a_run_that_was_killed_goes_on_as_if_it_was_not(tmp_path: Path, settings: LearnerSettings) -> None:
    whole = learning(tmp_path / "whole", settings)
    whole.run(500, nothing)
    whole.run(900, nothing)
    learning(tmp_path / "parts", settings).run(500, nothing)
    second = learning(tmp_path / "parts", settings)
    assert second.load()
    second.run(900, nothing)
    assert second.state.macro_actions == whole.state.macro_actions
    assert second.algorithm.model.num_timesteps == whole.algorithm.model.num_timesteps
    mine, theirs = second.algorithm.state(), whole.algorithm.state()
    for name, value in theirs.items():
        np.testing.assert_allclose(mine[name].numpy(), value.numpy(), atol=1e-5, err_msg=name)
    observations = whole.envs.observations()
    np.testing.assert_allclose(second.policy.act(observations)[0], whole.policy.act(observations)[0], atol=1e-5)
    np.testing.assert_allclose(whole.policy.act(observations)[0], whole.algorithm.act(observations)[0], atol=1e-5)


def test_reading_the_policy_draws_nothing_from_the_generator_that_learning_draws_from(tmp_path: Path) -> None:
    run = learning(tmp_path, PPO)
    before = torch.get_rng_state()
    assert run.policy.shape.action_size == 1
    assert torch.equal(torch.get_rng_state(), before)


class Breaks(LineEnv):
    """Shows infinity after some time."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, *rest = super().step(action)
        if self.steps == 13:
            observation["observation.state"][1] = np.inf
        return (observation, *rest)


def test_a_value_that_is_not_finite_stops_with_a_dump(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="value 1 of the observation"):
        learning(tmp_path, PPO, Breaks).run(400, nothing)
    assert (tmp_path / CRASH_FILE).exists()


@pytest.mark.parametrize("settings", [SAC, PPO], ids=["sac", "ppo"])
def test_a_policy_that_is_not_finite_stops_with_a_dump(tmp_path: Path, settings: LearnerSettings) -> None:
    run = learning(tmp_path, settings)
    run.run(200, nothing)
    with torch.no_grad():
        for weights in run.algorithm.model.policy.parameters():
            weights.fill_(float("nan"))
    with pytest.raises(ModelError, match=r"Stable-Baselines3 stopped at|the policy's action"):
        run.run(400, nothing)
    assert (tmp_path / CRASH_FILE).exists()


def test_batches_that_do_not_divide_the_rollout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a whole number of batches"):
        learning(tmp_path, Sb3PpoSettings(rollout_steps=10, batch_size=16))
    with pytest.raises(ConfigError, match="temperature=0"):
        learning(tmp_path, replace(SAC, temperature=0.0))
    with pytest.raises(ConfigError, match="not one of Stable-Baselines3's"):
        learning(tmp_path, LearnerSettings(name="td3"))


def test_a_state_of_another_learner_is_refused(tmp_path: Path) -> None:
    run = learning(tmp_path, PPO)
    with pytest.raises(ModelError, match="another learner"):
        Sb3Algorithm(run.algorithm.model.env, SAC, LOOP, 0).load_state(run.algorithm.state())


def test_the_gymnasium_wrapper_is_what_it_expects_too() -> None:
    from stable_baselines3 import SAC as Theirs
    from stable_baselines3.common.env_checker import check_env

    env: gymnasium.Env[Any, Any] = ShapedReward(LineEnv(), TrueProgress(), LOOP.discount, action_repeat=4)
    flat = gymnasium.wrappers.FlattenObservation(env)
    check_env(flat, skip_render_check=True)
    model = Theirs("MlpPolicy", flat, learning_starts=10, gamma=LOOP.discount**4, policy_kwargs={"net_arch": [8]})
    model.learn(40)
    assert model.num_timesteps == 40


def test_environments_in_another_process_are_followed_alike(tmp_path: Path) -> None:
    contexts = [line_context(tmp_path / str(processes), replace(LOOP, processes=processes)) for processes in (0, 1)]
    try:
        runs = [Sb3Runner(context, SAC) for context in contexts]
        for run in runs:
            run.run(80, nothing)
        here, there = (run.replay for run in runs)
        assert here is not None
        assert there is not None
        np.testing.assert_array_equal(here.floats("observation"), there.floats("observation"))
    finally:
        for context in contexts:
            context.envs.close()
