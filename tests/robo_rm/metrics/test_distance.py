"""EPIC and STARC: by hand on a small environment, blind to shaping and scale, and not blind to a wrong end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robo_rm.metrics import epic_distance, starc_distance
from robo_rm.metrics.distance import epic_canonical, starc_canonical

S, A, G = 6, 3, 0.9


def _world(seed: int) -> np.ndarray:
    weights = np.random.default_rng(seed).random((S, A, S)) ** 4
    return weights / weights.sum(-1, keepdims=True)


def _reward(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(S, A, S))


def _shaping(potential: np.ndarray, terminal: np.ndarray | None = None) -> np.ndarray:
    """g (1 - done(s')) F(s') - F(s)."""
    live = 1.0 if terminal is None else 1.0 - terminal
    return np.broadcast_to((G * live * potential)[None, None, :] - potential[:, None, None], (S, A, S))


def test_epic_is_the_papers_formula_where_no_state_ends_the_episode() -> None:
    reward = _reward(0)
    leaving = reward.mean(axis=(1, 2))
    by_hand = reward + G * leaving[None, None, :] - leaving[:, None, None] - G * leaving.mean()
    np.testing.assert_allclose(epic_canonical(reward, G), by_hand, atol=1e-12)


def test_epic_of_a_two_state_world_by_hand() -> None:
    first = np.array([[[0.0, 1.0]], [[0.0, 0.0]]])
    second = np.array([[[0.0, 0.0]], [[1.0, 0.0]]])
    # f = (1/2, 0), C = R + g f(s') - f(s) - g/4, g = 1/2 (rows s, columns s')
    np.testing.assert_allclose(epic_canonical(first, 0.5)[:, 0], [[-0.375, 0.375], [0.125, -0.125]])
    np.testing.assert_allclose(epic_canonical(second, 0.5)[:, 0], [[-0.125, 0.125], [0.375, -0.375]])
    # Pearson over the four: (.046875 * 4) / sqrt(.3125 * .3125) = .6
    assert epic_distance(first, second, 0.5) == pytest.approx(np.sqrt((1 - 0.6) / 2))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 10), st.booleans())
def test_neither_distance_sees_scale_or_correct_shaping(seed: int, scale: float, with_end: bool) -> None:
    terminal = np.zeros(S, bool)
    terminal[-2:] = with_end
    reward = _reward(seed)
    potential = np.random.default_rng(seed + 1).normal(size=S)
    same = scale * reward + _shaping(potential, terminal)
    assert epic_distance(reward, same, G, terminal) == pytest.approx(0, abs=1e-5)
    assert starc_distance(reward, same, _world(seed), G, terminal) == pytest.approx(0, abs=1e-9)


def test_opposite_rewards_are_at_the_greatest_distance() -> None:
    reward = _reward(3)
    assert epic_distance(reward, -reward, G) == pytest.approx(1)
    assert starc_distance(reward, -reward, _world(3), G) == pytest.approx(1)


def test_a_potential_at_the_end_is_seen_only_by_a_distance_that_knows_the_end() -> None:
    terminal = np.arange(S) == S - 1
    reward, potential = _reward(4), np.linspace(0, 5, S)
    wrong = reward + _shaping(potential)  # pays g F(terminal), as if the episode went on
    assert epic_distance(reward, wrong, G) == pytest.approx(0, abs=1e-6)
    assert epic_distance(reward, wrong, G, terminal) > 0.1
    assert starc_distance(reward, wrong, _world(4), G) == pytest.approx(0, abs=1e-9)
    assert starc_distance(reward, wrong, _world(4), G, terminal) > 0.1


def test_starc_of_a_chain_by_hand() -> None:
    # 0 -> 1 -> 2 (end); action 0 advances, action 1 stays. Reward 1 on entering 2.
    transitions = np.zeros((3, 2, 3))
    transitions[0, 0, 1] = transitions[0, 1, 0] = transitions[1, 0, 2] = transitions[1, 1, 1] = 1
    reward = np.zeros((3, 2, 3))
    reward[1, 0, 2] = 1
    terminal = np.array([False, False, True])
    # Uniform policy, g = 1/2: V1 = 1/2 + V1/4 = 2/3, V0 = (V0 + V1)/4 = 2/9.
    v0, v1 = 2 / 9, 2 / 3
    expected = [[0.5 * v1 - v0, 0.5 * v0 - v0], [1 - v1, 0.5 * v1 - v1], [0, 0]]
    np.testing.assert_allclose(starc_canonical(reward, transitions, 0.5, terminal), expected, atol=1e-12)


def test_a_reward_of_pure_shaping_prefers_nothing() -> None:
    empty = _shaping(np.arange(S, dtype=float))
    assert np.isnan(epic_distance(_reward(5), empty, G))
    assert starc_distance(_reward(5), empty, _world(5), G) == pytest.approx(0.5)


def test_transitions_out_of_a_terminal_state_do_not_count() -> None:
    terminal = np.arange(S) == 0
    reward = _reward(6)
    changed = reward.copy()
    changed[0] += 100
    assert epic_distance(reward, changed, G, terminal) == pytest.approx(0, abs=1e-6)
    assert starc_distance(reward, changed, _world(6), G, terminal) == pytest.approx(0, abs=1e-9)


def test_bad_arguments_are_refused() -> None:
    reward = _reward(7)
    with pytest.raises(ValueError, match="states, actions, states"):
        epic_distance(reward[0], reward[0], G)
    with pytest.raises(ValueError, match="discount"):
        epic_distance(reward, reward, 1.0)
    with pytest.raises(ValueError, match="terminal"):
        epic_distance(reward, reward, G, np.zeros(3, bool))
    with pytest.raises(ValueError, match="sum to 1"):
        starc_distance(reward, reward, 2 * _world(7), G)
    with pytest.raises(ValueError, match="NaN"):
        starc_distance(reward * np.nan, reward, _world(7), G)
    with pytest.raises(ValueError, match="covered"):
        epic_distance(reward, reward, G, np.ones(S, bool))
