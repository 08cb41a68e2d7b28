"""Implicit Q-learning: its losses are the paper's, and it beats cloning where the store is of mixed quality."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robo_core.errors import ConfigError, ModelError
from robo_policies.rl.algorithms.iql import Iql, expectile_loss
from robo_policies.rl.algorithms.preference_reward import learn_preferences, relabel_with
from robo_policies.rl.settings import IqlSettings
from robo_policies.rl.storage.replay_buffer import Batch, ReplayBuffer
from robo_rm.shaping.modes import ShapingSettings

SETTINGS = IqlSettings(width=32, batch_size=64, learning_rate=3e-3, tau=0.05)


def walks(good: float = 0.3, episodes: int = 60, seed: int = 0) -> ReplayBuffer:
    """Walks on a line from 0 towards 1 in 8 steps; a good one steps right each time, a poor one at random."""
    rng = np.random.default_rng(seed)
    replay = ReplayBuffer(8 * episodes, 1, 1, "line")
    for number in range(episodes):
        skilled = rng.random() < good
        place, rows = 0.0, []
        for t in range(8):
            action = 1.0 if skilled else rng.uniform(-1, 1)
            after = float(np.clip(place + 0.2 * action, 0, 1))
            done = after >= 0.99
            rows.append((place, action, after, done, not done and t == 7))
            place = after
            if done:
                break
        columns = [np.array(column) for column in zip(*rows, strict=True)]
        seen, action, after, done, late = columns
        replay.add(
            {
                "observation": seen[:, None], "next_observation": after[:, None], "action": action[:, None],
                "next_prior_action": np.zeros((len(seen), 1)), "task_reward": done.astype(float), "potential": seen,
                "next_potential": after, "start_potential": np.zeros(len(seen)), "terminated": done,
                "truncated": late, "steps": np.ones(len(seen)),
                "episode": np.full(len(seen), number),
            },
            "line",
        )  # fmt: skip
    return replay


def trained(replay: ReplayBuffer, settings: IqlSettings, updates: int = 400, mode: str = "pbrs") -> Iql:
    iql, rng = Iql(2, 1, settings, seed=0), np.random.default_rng(0)
    for _ in range(updates):
        iql.update(replay.sample(rng, settings.batch_size, ShapingSettings(mode), 0.9))
    return iql


def middle_actions(iql: Iql) -> np.ndarray:
    seen = np.linspace(0, 0.8, 5, dtype=np.float32)
    return iql.act(np.stack([seen, seen], axis=1))[0].ravel()


def test_the_expectile_loss_is_least_at_the_expectile() -> None:
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    guesses = torch.linspace(-1, 1.5, 251)
    for expectile, lowest in ((0.5, 0.0), (0.9, 0.862)):
        losses = torch.stack([expectile_loss(values - guess, expectile) for guess in guesses])
        assert float(guesses[losses.argmin()]) == pytest.approx(lowest, abs=0.03)


def test_it_acts_better_than_most_of_the_store() -> None:
    replay = walks()
    cloned = trained(
        replay, IqlSettings(width=32, batch_size=64, learning_rate=3e-3, tau=0.05, inverse_temperature=0.0)
    )
    learnt = trained(
        replay, IqlSettings(width=32, batch_size=64, learning_rate=3e-3, tau=0.05, inverse_temperature=2.0)
    )
    assert middle_actions(learnt).mean() > middle_actions(cloned).mean() + 0.2
    assert middle_actions(learnt).mean() > 0.6


def test_the_policy_does_not_read_the_potential() -> None:
    iql = Iql(2, 1, SETTINGS, seed=0)
    low, high = iql.act(np.array([[0.3, 0.0], [0.3, 1.0]], dtype=np.float32))[0]
    assert low == high


def test_a_restored_learner_continues_exactly() -> None:
    replay = walks()
    whole, rng = trained(replay, SETTINGS, 20), np.random.default_rng(9)
    batches = [replay.sample(rng, 64, ShapingSettings(), 0.9) for _ in range(5)]
    other = Iql(2, 1, SETTINGS, seed=3)
    other.load_state(whole.state())
    for batch in batches:
        assert other.update(batch) == whole.update(batch)
    with pytest.raises(ModelError, match="another learner"):
        Iql(3, 1, SETTINGS, seed=0).load_state(whole.state())


def test_a_reward_that_is_not_finite_stops_it() -> None:
    batch = walks().sample(np.random.default_rng(0), 64, ShapingSettings(), 0.9)
    spoilt = Batch(**{**batch.__dict__, "reward": np.full(64, np.nan, dtype=np.float32)})
    with pytest.raises(ModelError, match="critic_loss is nan"):
        Iql(2, 1, SETTINGS, seed=0).update(spoilt)


@pytest.mark.parametrize("wrong", [{"expectile": 1.0}, {"expectile": 0.3}, {"inverse_temperature": -1.0}])
def test_settings_that_make_no_sense_are_told(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expectile from"):
        Iql(2, 1, IqlSettings(**wrong), seed=0)  # type: ignore[arg-type]


def test_a_score_learned_from_preferences_orders_states_as_the_reward_model_does() -> None:
    replay = walks()
    # The reward model's scale is bent: only its order may matter.
    bent = {
        name: np.asarray(replay.floats(name), dtype=np.float64) ** 4
        for name in ("potential", "next_potential", "start_potential")
    }
    replay.relabel("bent", lambda _: bent)
    score = learn_preferences(replay, steps=300, margin=0.01, width=32, seed=0)
    assert score.agreement > 0.95
    line = score(np.linspace(0, 1, 11, dtype=np.float32)[:, None])
    assert (np.diff(line) >= -1e-6).all()
    assert line[0] < 0.1
    assert line[-1] > 0.9
    relabel_with(replay, score, "preferences of line")
    assert replay.version == "preferences of line"
    np.testing.assert_allclose(replay.floats("potential"), score(replay.floats("observation")), atol=1e-6)
    begins = replay.floats("observation")[:, 0] == 0.0
    np.testing.assert_allclose(replay.floats("start_potential")[begins], replay.floats("potential")[begins], atol=1e-6)


def test_progress_that_never_changes_is_refused() -> None:
    replay = walks()
    replay.relabel(
        "flat", lambda r: {n: np.full(len(r), 0.5) for n in ("potential", "next_potential", "start_potential")}
    )
    with pytest.raises(ConfigError, match="no pair differs"):
        learn_preferences(replay, 10, 0.05, 8, 0)
    with pytest.raises(ConfigError, match="preference_steps=0"):
        learn_preferences(replay, 0, 0.05, 8, 0)
