"""SAC: critics learn discounted returns, the behaviour prior acts where it is better, states resume."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from robo_core.errors import ModelError
from robo_policies.rl.algorithms.sac import Sac
from robo_policies.rl.algorithms.sac_losses import actor_loss
from robo_policies.rl.modules.actor_critic import SquashedGaussianActor
from robo_policies.rl.settings import SacSettings
from robo_policies.rl.storage.replay_buffer import Batch

SMALL = SacSettings(width=32, batch_size=64, learning_rate=3e-3, tau=0.05)


def bandit(rng: np.random.Generator, count: int = 64) -> Batch:
    """One action and the end: reward 1 - (a - s)^2 for an action a in the state s."""
    seen = rng.uniform(-0.8, 0.8, (count, 2)).astype(np.float32)
    action = rng.uniform(-1, 1, (count, 1)).astype(np.float32)
    reward = 1 - np.square(action[:, 0] - seen[:, 0])
    return Batch(seen, action, reward, np.zeros(count, np.float32), seen, action, reward)


def trained(steps: int, **changes) -> Sac:
    rng = np.random.default_rng(0)
    learner = Sac(2, 1, SMALL, seed=0, **changes)
    for _ in range(steps):
        learner.update(bandit(rng), None)
    return learner


def test_the_actor_finds_what_pays() -> None:
    learner = trained(400)
    seen = np.array([[-0.6, 0.0], [0.0, 0.3], [0.6, -0.5]], dtype=np.float32)
    action, from_prior = learner.act(seen, explore=False)
    np.testing.assert_allclose(action[:, 0], seen[:, 0], atol=0.25)
    assert not from_prior.any()


def test_the_value_of_a_macro_action_is_discounted_by_its_steps() -> None:
    """Two states in a row: the first pays nothing and leads to the second, which pays 1."""
    learner = Sac(2, 1, SacSettings(width=32, learning_rate=3e-3, tau=0.05, temperature=1e-4), seed=0)
    rng = np.random.default_rng(0)
    first, second = np.array([0.0, 1.0], np.float32), np.array([1.0, 0.0], np.float32)
    for _ in range(400):
        action = rng.uniform(-1, 1, (64, 1)).astype(np.float32)
        here = rng.random(64) < 0.5
        seen = np.where(here[:, None], first, second)
        reward = np.where(here, 0.0, 1.0).astype(np.float32)
        bootstrap = np.where(here, 0.9**5, 0.0).astype(np.float32)
        after = np.broadcast_to(second, (64, 2)).astype(np.float32)
        learner.update(Batch(seen, action, reward, bootstrap, after, action, reward), None)
    with torch.no_grad():
        values = learner.critics(torch.from_numpy(np.stack([first, second])), torch.zeros(2, 1)).mean(0)
    assert values.tolist() == pytest.approx([0.9**5, 1.0], abs=0.08)


def test_a_better_prior_action_is_carried_out_and_a_worse_one_is_not() -> None:
    learner = trained(400)
    seen = np.array([[0.5, 0.0]] * 4, dtype=np.float32)
    own, _ = learner.act(seen, explore=False)
    action, from_prior = learner.act(seen, explore=False, prior_actions=np.full((4, 1), -1.0, np.float32))
    assert not from_prior.any()
    np.testing.assert_array_equal(action, own)
    learner.actor = SquashedGaussianActor(2, 1, 32)
    with torch.no_grad():
        list(learner.actor.body.children())[-1].bias.fill_(-5.0)
    action, from_prior = learner.act(seen, explore=False, prior_actions=seen[:, :1])
    assert from_prior.all()
    np.testing.assert_array_equal(action[:, 0], seen[:, 0])


def test_a_better_prior_action_is_bootstrapped_from() -> None:
    """The next state's value is that of the prior where the actor's own action is worth less."""
    with_prior = trained(400, use_prior=True)
    seen = np.full((64, 2), 0.5, np.float32)
    zeros = np.zeros(64, np.float32)
    with_prior.actor = SquashedGaussianActor(2, 1, 32)
    with torch.no_grad():
        list(with_prior.actor.body.children())[-1].bias.fill_(-5.0)
        good = with_prior.targets(torch.from_numpy(seen), torch.full((64, 1), 0.5)).min(0).values.mean()
        own = with_prior.targets(torch.from_numpy(seen), torch.full((64, 1), -1.0)).min(0).values.mean()
    assert float(good) > float(own) + 0.5
    batch = Batch(seen, seen[:, :1], zeros, zeros + 1, seen, np.full((64, 1), 0.5, np.float32), zeros)
    free = {"low": torch.full((64,), -torch.inf), "high": torch.full((64,), torch.inf)}
    for _ in range(150):
        with_prior._update_critics({n: torch.from_numpy(getattr(batch, n)) for n in _PARTS} | free)
    with torch.no_grad():
        value = with_prior.critics(torch.from_numpy(seen), torch.from_numpy(batch.action)).mean()
    assert float(value) == pytest.approx(float(good), abs=0.1)


@pytest.mark.parametrize(("worth", "reached"), [(1.0, 0.7), (-1.0, 0.0)])
def test_what_was_tried_and_is_better_is_imitated_and_what_is_worse_is_not(worth: float, reached: float) -> None:
    """Critics are flat but at the action that was tried, so that no gradient leads there."""
    torch.manual_seed(0)
    actor = SquashedGaussianActor(2, 1, 32)
    steps = torch.optim.Adam(actor.parameters(), 3e-3)
    seen, tried = torch.rand(64, 2), torch.full((64, 1), 0.7)

    def value_of(_: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return 1.0 + worth * ((action - tried).abs() < 1e-6).float()[:, 0] + 0 * action[:, 0]

    before = float(actor.mode(seen).mean().detach())
    for _ in range(300):
        loss, _ = actor_loss(actor, value_of, seen, tried, torch.zeros(64, 1), torch.tensor(0.0), imitation_weight=0.1)
        steps.zero_grad()
        loss.backward()
        steps.step()
    assert float(actor.mode(seen).mean().detach()) == pytest.approx(reached or before, abs=0.05)


def test_impossible_values_are_not_learned_from() -> None:
    """Critics that claim 5 of the next state teach no more than its upper bound."""
    learner = Sac(2, 1, SMALL, seed=0)
    with torch.no_grad():
        learner.targets.biases[2].fill_(5.0)
    learner.settings = replace(SMALL, tau=0.0)
    rng, zeros = np.random.default_rng(0), np.zeros(64, np.float32)
    bounds = np.stack([zeros - 0.3, zeros + 0.7], axis=1)
    for _ in range(200):
        seen = rng.uniform(-1, 1, (64, 2)).astype(np.float32)
        action = rng.uniform(-1, 1, (64, 1)).astype(np.float32)
        learner.update(Batch(seen, action, zeros, zeros + 1, seen, action, zeros, bounds), None)
    with torch.no_grad():
        value = learner.critics(torch.from_numpy(seen), torch.from_numpy(action))
    assert float(value.mean()) == pytest.approx(0.7, abs=0.05)


def test_acting_draws_nothing_where_nothing_is_explored() -> None:
    """More than two critics: training draws two of them, a policy must not."""
    learner = Sac(2, 1, replace(SMALL, critics=5), seed=0, use_prior=True)
    seen = np.random.default_rng(0).uniform(-1, 1, (200, 2)).astype(np.float32)
    acts = [learner.act(seen, explore=False, prior_actions=-seen[:, :1]) for _ in range(4)]
    for action, chosen in acts[1:]:
        np.testing.assert_array_equal(action, acts[0][0])
        np.testing.assert_array_equal(chosen, acts[0][1])


_PARTS = ("observation", "action", "reward", "bootstrap", "next_observation", "next_prior_action")


def test_a_resumed_learner_goes_on_bit_for_bit() -> None:
    first = trained(20)
    second = Sac(2, 1, SMALL, seed=5)
    second.load_state(first.state())
    rng, again = np.random.default_rng(7), np.random.default_rng(7)
    for _ in range(5):
        assert first.update(bandit(rng), bandit(rng)) == second.update(bandit(again), bandit(again))
    for name, value in first.state().items():
        assert torch.equal(value, second.state()[name]), name


def test_the_density_is_that_of_the_action() -> None:
    """Against numerical integration of exp(density) over the actions."""
    torch.manual_seed(0)
    actor = SquashedGaussianActor(2, 1, 16)
    seen = torch.randn(1, 2).expand(20001, 2)
    noise = torch.linspace(-9, 9, 20001)[:, None]
    with torch.no_grad():
        action, density = actor(seen, noise)
    total = torch.trapezoid(density.double().exp(), action[:, 0].double())
    assert float(total) == pytest.approx(1, abs=1e-3)


def test_divergence_and_foreign_states_are_reported() -> None:
    learner = trained(2)
    broken = bandit(np.random.default_rng(0))
    broken.reward[3] = np.nan
    with pytest.raises(ModelError, match="diverged at update 3: critic_loss is nan"):
        learner.update(broken, None)
    with pytest.raises(ModelError, match="of another learner"):
        trained(1).load_state(Sac(3, 1, SMALL, seed=0).state())


def test_inputs_are_normalized_and_the_scales_are_restored() -> None:
    """The same learner for observations in metres and in millimetres, when it knows their scale."""
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(6, 3)).astype(np.float32)
    zero, one = np.zeros(3, np.float32), np.ones(3, np.float32)
    plain = Sac(3, 2, SacSettings(width=16), 0, scaling=(zero, one))
    scaled = Sac(3, 2, SacSettings(width=16), 0, scaling=(zero + 5, 1000 * one))
    np.testing.assert_allclose(plain.act(seen, False)[0], scaled.act(1000 * seen + 5, False)[0], atol=1e-5)
    again = Sac(3, 2, SacSettings(width=16), 1)
    again.load_state(scaled.state())
    np.testing.assert_array_equal(again.act(seen, False)[0], scaled.act(seen, False)[0])
