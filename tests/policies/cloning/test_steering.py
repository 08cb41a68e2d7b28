from __future__ import annotations

import numpy as np
import pytest
import torch

from robo_core.errors import ConfigError, ModelError
from robo_policies import evaluate
from robo_policies.cloning.steering import Steering, guided_sample

SHIFT = np.array([0.5, -0.5], np.float32)


@pytest.fixture
def policy(diffusion_policy):
    policy = diffusion_policy.policy
    policy.reset()
    yield policy
    policy.steering = None


@pytest.fixture
def shifted_env(point_env):
    """The toy task, but the goal is not where the policy sees it."""

    class Shifted(point_env):
        def _observation(self):
            seen = super()._observation()
            seen["observation.environment_state"] = seen["observation.environment_state"].copy()
            seen["observation.environment_state"][:2] -= SHIFT
            return seen

    return Shifted


def towards_the_goal(actions: torch.Tensor, observation) -> torch.Tensor:
    """Minus the squared distances of all places of a chunk from where the goal really is."""
    goal = torch.from_numpy(observation["observation.environment_state"][:, :2] + SHIFT)
    return -(actions - goal[:, None, None]).square().mean(3).sum(2)


def seen(count=3):
    random = np.random.default_rng(1)
    return {
        "observation.state": random.uniform(-1, 1, (count, 2)).astype(np.float32),
        "observation.environment_state": random.uniform(-0.5, 0.5, (count, 3)).astype(np.float32),
    }


def test_steering_recovers_success_where_the_goal_is_shifted(policy, shifted_env):
    blind = evaluate(policy, shifted_env, episodes=20, seed=5)
    policy.steering = Steering(towards_the_goal, scale=0.5, largest_move=0.3)
    steered = evaluate(policy, shifted_env, episodes=20, seed=5)
    assert blind.success_rate <= 0.6
    assert steered.success_rate >= 0.9


def test_without_guided_steps_the_actions_are_those_of_the_policy(policy):
    plain = policy.act(seen())
    policy.reset()
    policy.steering = Steering(towards_the_goal, guided_steps=0)
    np.testing.assert_allclose(policy.act(seen()), plain, atol=1e-6)


def test_guidance_raises_the_reward_the_more_the_stronger(policy):
    rewards = []
    for scale in (None, 0.02, 0.2):
        policy.steering = None if scale is None else Steering(towards_the_goal, scale=scale)
        policy.reset()
        chunk = torch.from_numpy(policy.act(seen()))[:, None]
        rewards.append(float(towards_the_goal(chunk, seen()).mean()))
    assert rewards[0] < rewards[1] < rewards[2]


def test_more_particles_find_a_better_chunk(policy):
    rewards = []
    for particles in (1, 8):
        found = []
        for start in range(5):
            policy.reset()
            policy.act(seen(start + 1))  # moves the noise on
            policy.steering = Steering(towards_the_goal, scale=0.01, particles=particles, temperature=0.05)
            chunk = policy.act(seen())
            assert chunk.shape == (3, 8, 2)
            found.append(float(towards_the_goal(torch.from_numpy(chunk)[:, None], seen()).mean()))
            policy.steering = None
        rewards.append(np.mean(found))
    assert rewards[1] > rewards[0]


def test_the_reward_sees_actions_in_the_units_of_the_demonstrations(policy):
    given = []

    def note(actions, observation):
        given.append(actions.detach().numpy().copy())
        return actions.sum((2, 3)) * 0

    policy.steering = Steering(note, particles=2)
    chunk = policy.act({key: value[0] for key, value in seen().items()})
    assert given[-1].shape == (1, 2, 8, 2)
    assert chunk.shape == (8, 2)
    assert min(np.abs(given[-1][0, k] - chunk).max() for k in range(2)) < 1e-5


def test_no_number_moves_further_than_allowed_in_a_step(policy):
    diffusion = policy._policy.diffusion
    steep = Steering(lambda actions, _: 1e6 * actions.sum((2, 3)), guided_steps=1, largest_move=0.05)
    weak = Steering(lambda actions, _: 0 * actions.sum((2, 3)), guided_steps=1)
    noise = torch.zeros(1, 8, 2)
    condition = torch.zeros(1, 5)
    samples = []
    with torch.no_grad():
        for steering in (steep, weak):
            generator = torch.Generator().manual_seed(0)
            samples.append(guided_sample(diffusion, condition, generator, noise, steering, lambda x: x, {}))
    moved = samples[0] - samples[1]
    assert float(moved.max()) <= 0.05 + 1e-5
    assert float(moved.min()) >= -1e-5
    assert float(moved.max()) > 0.01


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        (lambda actions, _: actions.sum(), r"shape \(\); it must be \(3, 1\)"),
        (lambda actions, _: torch.zeros(3, 1), "does not depend on the actions"),
        (lambda actions, _: actions.sum((2, 3)) * float("nan"), "is not finite"),
    ],
)
def test_a_reward_that_cannot_steer_is_refused(policy, reward, words):
    policy.steering = Steering(reward)
    with pytest.raises(ModelError, match=words):
        policy.act(seen())


def test_act_cannot_be_steered(point_policy):
    with pytest.raises(ModelError, match="only diffusion policies can be steered"):
        point_policy.policy.steering = Steering(towards_the_goal)


@pytest.mark.parametrize(
    "changes", [{"scale": 0}, {"largest_move": -1}, {"temperature": 0}, {"guided_steps": -1}, {"particles": 0}]
)
def test_settings_out_of_range_are_named(changes):
    with pytest.raises(ConfigError, match=f"steering.*{next(iter(changes))}"):
        Steering(towards_the_goal, **changes)
