"""Shaped rewards of single transitions, macro-actions, n-step returns, ended and cut-off episodes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from returns import n_step_return

from robo_core.errors import ConfigError
from robo_rm import shaped_reward
from robo_rm.shaping.modes import ShapingSettings, Transitions, check_plain, describe_terms, reward_terms
from robo_rm.shaping.potential_based import macro_action_reward


def test_the_formula_by_hand() -> None:
    # 0.5 + 0.9^2 * 0.7 - 0.4
    assert shaped_reward(0.5, 0.4, 0.7, False, 0.9, steps=2) == pytest.approx(0.667)


def test_a_terminal_state_has_no_potential_whatever_the_model_says() -> None:
    assert shaped_reward(1.0, 0.9, 0.95, True, 0.9) == pytest.approx(0.1)
    assert shaped_reward(1.0, 0.9, np.nan, True, 0.9) == pytest.approx(0.1)


def test_torch_and_numpy_agree() -> None:
    rng = np.random.default_rng(0)
    task_reward, before, after = rng.random((3, 64))
    ended, steps = rng.random(64) < 0.3, rng.integers(1, 6, 64)
    expected = shaped_reward(task_reward, before, after, ended, 0.97, steps)
    made = shaped_reward(*map(torch.from_numpy, (task_reward, before, after, ended)), 0.97, torch.from_numpy(steps))
    assert isinstance(made, torch.Tensor)
    np.testing.assert_allclose(made.numpy(), expected, rtol=0, atol=1e-12)


episodes = st.integers(1, 40).flatmap(
    lambda count: st.tuples(
        st.lists(st.floats(-1, 1), min_size=count, max_size=count),
        st.lists(st.floats(0, 1), min_size=count + 1, max_size=count + 1),
        st.lists(st.integers(1, 7), min_size=count, max_size=count),
        st.booleans(),
        st.floats(0.8, 1.0),
        st.integers(1, 8),
    )
)


@given(episodes)
def test_n_step_returns_of_shaped_macro_actions_keep_only_the_endpoints(episode: tuple) -> None:
    """Telescoping to 1e-6, over episodes that end or are cut off, macro-actions of any length and any n."""
    task_reward, potentials, steps, terminated, discount, n = episode
    ended = np.zeros(len(task_reward), dtype=bool)
    ended[-1] = terminated
    shaped = shaped_reward(task_reward, potentials[:-1], potentials[1:], ended, discount, steps)
    for start in range(len(task_reward)):
        stop = min(start + n, len(task_reward))
        total, lasted = n_step_return(shaped[start:stop], steps[start:stop], discount)
        plain, _ = n_step_return(task_reward[start:stop], steps[start:stop], discount)
        after = 0.0 if ended[stop - 1] else potentials[stop]
        assert total == pytest.approx(plain + discount**lasted * after - potentials[start], abs=1e-6)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12), st.floats(0.5, 1.0))
def test_one_long_macro_action_is_the_same_steps_one_by_one(rewards: list[float], discount: float) -> None:
    one_by_one, lasted = n_step_return(rewards, [1] * len(rewards), discount)
    assert macro_action_reward(rewards, discount) == pytest.approx(one_by_one, abs=1e-9)
    assert lasted == len(rewards)


@pytest.mark.parametrize("discount", [0.0, -0.5, 1.01, float("nan")])
def test_a_discount_that_is_none_is_refused(discount: float) -> None:
    with pytest.raises(ConfigError, match="discount"):
        shaped_reward(0.0, 0.0, 0.0, False, discount)


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="NaN or infinity"):
        shaped_reward([0.0, np.nan], 0.0, 0.0, False, 0.9)
    with pytest.raises(ConfigError, match="NaN or infinity"):
        shaped_reward(torch.zeros(2), torch.tensor([0.0, torch.inf]), torch.zeros(2), torch.zeros(2), 0.9)
    with pytest.raises(ConfigError, match="at least one environment step"):
        shaped_reward(0.0, 0.0, 0.0, False, 0.9, steps=0)


def test_the_active_terms_are_told() -> None:
    rows = dict(describe_terms(ShapingSettings("bilevel", occupancy=0.2, ensemble="lcb", pessimism=3.0), 0.99))
    assert "blend" in rows["bilevel"]
    assert "0.2 sigma" in rows["occupancy"]
    assert "minus 3 times its members' variance" in rows["ensemble"]
    assert set(dict(describe_terms(ShapingSettings("sparse"), 0.99))) == {"task reward", "discount"}


@pytest.mark.parametrize(
    "settings", [ShapingSettings("multi_critic"), ShapingSettings("bilevel"), ShapingSettings("pbrs", occupancy=0.1)]
)
def test_modes_with_a_half_in_the_learner_are_no_reward_alone(settings: ShapingSettings) -> None:
    with pytest.raises(ConfigError, match="learner made for it"):
        check_plain(settings)


def test_the_terms_of_a_blend_add_up_to_task_reward_and_progress() -> None:
    one = np.ones(1)
    transition = Transitions(one, 0.2 * one, 0.7 * one, 0 * one, one < 0, one < 0, one.astype(np.int64))
    for mode in ("multi_critic", "bilevel"):
        terms = reward_terms(ShapingSettings(mode, scale=2.0), transition, 0.99)
        assert (float(terms["task"][0]), float(terms["shaping"][0])) == pytest.approx((1.0, 1.4))
