"""The discriminator finds the chi-squared divergence of two known occupancies, and the penalty goes where it should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from robo_core.errors import ConfigError, ModelError
from robo_policies.rl.algorithms.occupancy_penalty import ChiSquaredPenalty, PenalizedSac, trimmed_mean
from robo_policies.rl.storage.replay_buffer import Batch
from robo_policies.rl.types import Floats

POLICY = np.array([0.1, 0.3, 0.6])
REFERENCE = np.array([0.5, 0.3, 0.2])


def drawn(rng: np.random.Generator, chances: Any, count: int = 512) -> Floats:
    """States as one-hot vectors, drawn by their chances."""
    return np.eye(len(chances), dtype=np.float32)[rng.choice(len(chances), count, p=chances)]


def trained(policy: Any, reference: Any, updates: int = 600) -> ChiSquaredPenalty:
    made, rng = ChiSquaredPenalty(3, 1.0, 16, 3e-3, seed=0), np.random.default_rng(0)
    for _ in range(updates):
        made.update(drawn(rng, policy), drawn(rng, reference))
    return made


def test_it_finds_the_ratio_and_the_divergence_of_known_occupancies() -> None:
    made = trained(POLICY, REFERENCE)
    states = np.eye(3, dtype=np.float32)
    np.testing.assert_allclose(made.excess(states) + 1, POLICY / REFERENCE, rtol=0.15)
    divergence = float(POLICY @ made.excess(states))
    exact = float((POLICY**2 / REFERENCE).sum() - 1)
    assert divergence == pytest.approx(exact, rel=0.2)
    assert made.root == pytest.approx(exact**0.5, rel=0.2)
    made.reward_std = 2.0
    wanted = 1.0 * 2.0 * (POLICY / REFERENCE - 1) / exact**0.5
    np.testing.assert_allclose(made.penalty(states), wanted, atol=0.4)


def test_where_the_policy_is_where_the_demonstrations_are_nothing_is_taken() -> None:
    made = trained(REFERENCE, REFERENCE)
    made.reward_std = 1.0
    assert np.abs(made.penalty(np.eye(3, dtype=np.float32))).max() < 0.5
    assert made.root == pytest.approx(0.1, abs=0.1)


class Notes:
    """A learner that only notes the rewards it gets."""

    settings, device = None, "cpu"

    def update(self, own: Batch, demonstrated: Batch | None) -> dict[str, float]:
        self.own, self.demonstrated = own, demonstrated
        return {"loss": 1.0}

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, held: Any) -> None:
        pass


def batch(rng: np.random.Generator, chances: Any, reward: float) -> Batch:
    states = drawn(rng, chances)
    count = len(states)
    seen = np.c_[states, np.zeros(count)].astype(np.float32)
    action = np.zeros((count, 1), np.float32)
    pay = (reward + rng.normal(size=count)).astype(np.float32)
    return Batch(seen, action, pay, np.zeros(count, np.float32), seen, action, np.zeros(count, np.float32))


def penalized(weight: float = 0.5) -> tuple[PenalizedSac, Notes]:
    inner = Notes()
    penalty = ChiSquaredPenalty(4, weight, 16, 3e-3, seed=0)
    return PenalizedSac(inner, penalty, (np.zeros(3, np.float32), np.ones(3, np.float32))), inner


def test_leaving_the_demonstrations_costs_the_learner_reward() -> None:
    learner, inner = penalized()
    rng = np.random.default_rng(0)
    for _ in range(300):
        fresh, shown = batch(rng, POLICY, 1.0), batch(rng, REFERENCE, 1.0)
        losses = learner.update(fresh, shown)
    taken = fresh.reward - inner.own.reward
    at = fresh.observation.argmax(axis=1)
    assert taken[at == 2].mean() > 0.3, "the policy is there three times as often as the demonstrations"
    assert taken[at == 0].mean() < -0.1, "and here a fifth as often"
    assert losses["occupancy_penalty"] == pytest.approx(float(taken.mean()), abs=1e-4)
    np.testing.assert_array_equal(inner.own.observation, fresh.observation)


def test_it_goes_on_from_its_state() -> None:
    first, _ = penalized()
    rng = np.random.default_rng(0)
    for _ in range(5):
        first.update(batch(rng, POLICY, 1.0), batch(rng, REFERENCE, 1.0))
    other, _ = penalized()
    other.load_state(first.state())
    fresh, shown = batch(rng, POLICY, 1.0), batch(rng, REFERENCE, 1.0)
    assert other.update(fresh, shown) == first.update(fresh, shown)
    with pytest.raises(ModelError, match="another learner"):
        other.load_state({})


def test_bad_input_is_told() -> None:
    learner, _ = penalized()
    with pytest.raises(ConfigError, match="demonstrations"):
        learner.update(batch(np.random.default_rng(0), POLICY, 1.0), None)
    with pytest.raises(ConfigError, match="occupancy=0"):
        ChiSquaredPenalty(3, 0.0, 8, 1e-3, 0)


def test_the_trimmed_mean_leaves_out_both_ends() -> None:
    values = np.r_[np.ones(98), 1e9, -1e9]
    assert trimmed_mean(values, 0.01) == pytest.approx(1.0)
