"""Critics for each term: a term's scale does not matter, and a blend turns from an auxiliary reward that misleads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from robo_policies.rl.algorithms.multi_critic_sac import MultiCriticSac
from robo_policies.rl.settings import SacSettings
from robo_policies.rl.storage.replay_buffer import Batch
from robo_policies.rl.types import Floats

SETTINGS = SacSettings(
    policy_delay=2,
    width=32,
    critics=2,
    batch_size=128,
    learning_rate=3e-3,
    tau=0.05,
    temperature=0.01,
    target_entropy=-2.0,
)


def bandit(rng: np.random.Generator, auxiliary: float, scale: float, count: int = 128) -> Batch:
    """One action in [-1, 1] that ends the task: the task reward is best at 0.5, the auxiliary at ``auxiliary``."""
    action = rng.uniform(-1, 1, (count, 1)).astype(np.float32)
    task = 1 - (action[:, 0] - 0.5) ** 2
    reward = task + scale * (1 - (action[:, 0] - auxiliary) ** 2)
    seen = np.zeros((count, 2), np.float32)
    return Batch(
        seen, action, reward.astype(np.float32), np.zeros(count, np.float32), seen, np.zeros_like(action),
        task.astype(np.float32),
    )  # fmt: skip


def learn(blend: str, auxiliary: float, scale: float, updates: int = 300) -> tuple[MultiCriticSac, dict[str, float]]:
    learner, rng = MultiCriticSac(2, 1, SETTINGS, 0, blend), np.random.default_rng(0)
    losses: dict[str, float] = {}
    for _ in range(updates):
        losses |= learner.update(bandit(rng, auxiliary, scale), None)
    return learner, losses


def chosen(learner: MultiCriticSac) -> float:
    seen: Floats = np.zeros((1, 2), np.float32)
    return float(learner.act(seen, explore=False)[0][0, 0])


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_no_term_dominates_the_others_by_its_scale(scale: float) -> None:
    # The actor stays as it is, around 0, where both terms are equally steep but for the scale.
    learner = MultiCriticSac(2, 1, replace(SETTINGS, policy_delay=10**6), 0, "multi_critic")
    rng = np.random.default_rng(0)
    for _ in range(400):
        learner.update(bandit(rng, -0.5, scale), None)
    seen = torch.zeros(128, 2)
    learner.updates = 0
    for _ in range(3):
        learner._update_std(seen)
    assert float(learner.value_weights[0] / learner.value_weights[1]) == pytest.approx(scale, rel=0.5)
    action = torch.zeros(1, 1, requires_grad=True)
    learner._value(seen[:1], action).sum().backward()
    pull = abs(float(action.grad))
    assert pull < 0.4 * float(learner.value_weights[0]), "each term alone pulls as strongly as its weight times 1"


def test_a_blend_turns_away_from_what_misleads_and_follows_what_helps() -> None:
    misled, wrong = learn("bilevel", -0.5, 1.0, updates=500)
    helped, right = learn("bilevel", 0.5, 1.0, updates=500)
    assert wrong["blend_weight_task"] > 0.8
    assert chosen(misled) == pytest.approx(0.5, abs=0.15)
    assert chosen(helped) == pytest.approx(0.5, abs=0.15)
    assert right["blend_weight_shaping"] + right["blend_weight_shaping_now"] > 2 * (
        wrong["blend_weight_shaping"] + wrong["blend_weight_shaping_now"]
    )


def test_each_terms_critics_learn_that_term() -> None:
    learner, _ = learn("bilevel", -0.5, 3.0)
    action = torch.tensor([[-0.5], [0.5]])
    with torch.no_grad():
        task, later, now = learner._by_term(learner.critics(torch.zeros(2, 2), action)).mean(dim=1)
    assert task.tolist() == pytest.approx([0.0, 1.0], abs=0.15)
    assert later.tolist() == pytest.approx([3.0, 0.0], abs=0.4)
    assert now.tolist() == pytest.approx([3.0, 0.0], abs=0.4)


def test_discounts_of_the_terms_differ() -> None:
    """A task that never ends and pays 1 at each step is worth 1 / (1 - g), and 1 with the discount 0."""
    learner, rng = MultiCriticSac(2, 1, SETTINGS, 0, "bilevel"), np.random.default_rng(0)
    seen = np.zeros((128, 2), np.float32)
    for _ in range(400):
        action = rng.uniform(-1, 1, (128, 1)).astype(np.float32)
        ones = np.ones(128, np.float32)
        learner.update(Batch(seen, action, ones, 0.8 * ones, seen, action, 0 * ones), None)
    with torch.no_grad():
        task, later, now = learner._by_term(learner.critics(torch.zeros(1, 2), torch.zeros(1, 1))).mean(dim=(1, 2))
    assert [float(task), float(later), float(now)] == pytest.approx([0.0, 5.0, 1.0], abs=0.3)


@pytest.mark.parametrize("blend", ["multi_critic", "bilevel"])
def test_a_restored_learner_continues_exactly(blend: str) -> None:
    whole, _ = learn(blend, -0.5, 2.0, updates=20)
    other = MultiCriticSac(2, 1, SETTINGS, 5, blend)
    other.load_state(whole.state())
    rng = np.random.default_rng(3)
    batches = [bandit(rng, -0.5, 2.0) for _ in range(4)]
    for batch in batches:
        assert other.update(batch, None) == whole.update(batch, None)


def test_prior_actions_compete_by_the_blended_value() -> None:
    learner, rng = MultiCriticSac(2, 1, SETTINGS, 0, "bilevel", use_prior=True), np.random.default_rng(0)
    for _ in range(200):
        learner.update(bandit(rng, -0.5, 1.0), bandit(rng, -0.5, 1.0))
    seen = np.zeros((2, 2), np.float32)
    prior = np.array([[0.5], [-0.95]], np.float32)
    action, taken = learner.act(seen, explore=False, prior_actions=prior)
    assert not taken[1]
    assert action[0, 0] == pytest.approx(0.5, abs=0.3)
