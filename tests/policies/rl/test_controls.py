"""Stable-Baselines3's learners on our decisions: they see the right transitions, learn, and go on exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from line_world import LineWorld

from robo_core.errors import ConfigError, ModelError
from robo_policies.rl.controls import Control, ControlLearning
from robo_policies.rl.decisions import DecisionWorlds, action_map
from robo_policies.rl.learning import CRASH
from robo_policies.rl.settings import ControlPpoSettings, ControlSacSettings, LearnerSettings, LearningSettings
from robo_policies.rl.shaping import ShapedReward
from robo_rm.shaping.core import shaped_reward
from robo_rm.shaping.modes import ShapingSettings
from robo_rm.shaping.potential import TrueProgress

LOOP = LearningSettings(
    repeat=4, worlds=2, updates_per_decision=2, warmup=20, capacity=2000, evaluate_every=400, evaluation_episodes=4
)
SAC = ControlSacSettings(width=32, batch=64, learning_rate=3e-3, tau=0.02, temperature=0.02)
PPO = ControlPpoSettings(width=16, batch=16, rollout=16, epochs=2, learning_rate=3e-3)


def worlds(seed: int, make: Any = LineWorld) -> DecisionWorlds:
    made = [make() for _ in range(LOOP.worlds)]
    return DecisionWorlds(made, action_map(made[0].action_space, LOOP.repeat), TrueProgress(), LOOP.discount, seed)


def learning(folder: Path, settings: LearnerSettings, make: Any = LineWorld) -> ControlLearning:
    return ControlLearning(worlds(0, make), worlds, settings, ShapingSettings("pbrs"), LOOP, 0, folder, "a")


def nothing(*_: Any) -> None:
    """Nobody to tell."""


def test_its_replay_holds_the_shaped_rewards_and_the_last_observations(tmp_path: Path) -> None:
    run = learning(tmp_path, SAC)
    run.run(400, nothing)
    buffer, ours = run.control.model.replay_buffer, run.replay
    assert ours is not None
    count = buffer.pos * LOOP.worlds
    assert count == len(ours)
    held = {n: getattr(buffer, n)[: buffer.pos].reshape(count, -1) for n in ("observations", "next_observations")}
    rewards, dones, timeouts = (getattr(buffer, n)[: buffer.pos].ravel() for n in ("rewards", "dones", "timeouts"))
    np.testing.assert_allclose(held["observations"], np.c_[ours["observation"], ours["potential"]], atol=1e-6)
    np.testing.assert_allclose(
        held["next_observations"], np.c_[ours["next_observation"], ours["next_potential"]], atol=1e-6
    )
    wanted = shaped_reward(
        ours["gold"], ours["potential"], ours["next_potential"], ours["terminated"], LOOP.discount, ours["steps"]
    )
    np.testing.assert_allclose(rewards, wanted, atol=1e-5)
    np.testing.assert_array_equal(dones.astype(bool), ours["terminated"] | ours["truncated"])
    np.testing.assert_array_equal(timeouts.astype(bool), ours["truncated"])
    assert ours["truncated"].any()


@pytest.mark.parametrize(
    "settings",
    [pytest.param(SAC, marks=pytest.mark.slow), replace(PPO, rollout=64, batch=64, epochs=10)],
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
    assert second.note.decisions == whole.note.decisions
    assert second.control.model.num_timesteps == whole.control.model.num_timesteps
    mine, theirs = second.control.state(), whole.control.state()
    for name, value in theirs.items():
        np.testing.assert_allclose(mine[name].numpy(), value.numpy(), atol=1e-5, err_msg=name)
    observations = whole.worlds.observations()
    np.testing.assert_allclose(second.acting.act(observations)[0], whole.acting.act(observations)[0], atol=1e-5)
    np.testing.assert_allclose(whole.acting.act(observations)[0], whole.control.act(observations)[0], atol=1e-5)


class Breaks(LineWorld):
    """Shows infinity after some time."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, *rest = super().step(action)
        if self.steps == 13:
            observation["observation.state"][1] = np.inf
        return (observation, *rest)


def test_a_number_that_is_none_stops_with_a_dump(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="value 1 of the observation"):
        learning(tmp_path, PPO, Breaks).run(400, nothing)
    assert (tmp_path / CRASH).exists()


@pytest.mark.parametrize("settings", [SAC, PPO], ids=["sac", "ppo"])
def test_a_policy_that_is_no_number_stops_with_a_dump(tmp_path: Path, settings: LearnerSettings) -> None:
    run = learning(tmp_path, settings)
    run.run(200, nothing)
    with torch.no_grad():
        for weights in run.control.model.policy.parameters():
            weights.fill_(float("nan"))
    with pytest.raises(ModelError, match=r"Stable-Baselines3 stopped at|the policy's action"):
        run.run(400, nothing)
    assert (tmp_path / CRASH).exists()


def test_batches_that_do_not_divide_the_rollout_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no whole number of batches"):
        learning(tmp_path, ControlPpoSettings(rollout=10, batch=16))
    with pytest.raises(ConfigError, match="temperature=0"):
        learning(tmp_path, replace(SAC, temperature=0.0))
    with pytest.raises(ConfigError, match="not one of Stable-Baselines3's"):
        learning(tmp_path, LearnerSettings(name="td3"))


def test_a_state_of_another_learner_is_told(tmp_path: Path) -> None:
    run = learning(tmp_path, PPO)
    with pytest.raises(ModelError, match="another learner"):
        Control(run.control.model.env, SAC, LOOP, 0).load_state(run.control.state())


def test_the_gymnasium_wrapper_is_what_it_expects_too() -> None:
    from stable_baselines3 import SAC as Theirs
    from stable_baselines3.common.env_checker import check_env

    env: gymnasium.Env[Any, Any] = ShapedReward(LineWorld(), TrueProgress(), LOOP.discount, repeat=4)
    flat = gymnasium.wrappers.FlattenObservation(env)
    check_env(flat, skip_render_check=True)
    model = Theirs("MlpPolicy", flat, learning_starts=10, gamma=LOOP.discount**4, policy_kwargs={"net_arch": [8]})
    model.learn(40)
    assert model.num_timesteps == 40
