"""The scripted operator: each quality does what its name says, the same each time, and clean runs succeed."""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

import numpy as np
import pytest

from robo_core.errors import ConfigError
from robo_policies import make_env
from robo_policies.envs.demonstrations import QUALITIES
from robo_policies.envs.tidy_drawer.demonstrations import demonstrate
from robo_policies.envs.tidy_drawer.operator import FASTEST_JOINT_STEP
from robo_policies.envs.tidy_drawer.progress import STAGES


class Run(NamedTuple):
    """What happened in one demonstration, frame by frame."""

    success: bool
    stage: np.ndarray
    progress: np.ndarray
    states: np.ndarray
    actions: np.ndarray


def perform(quality: str, seed: int) -> Run:
    env = make_env("tidy_drawer", max_steps=900)
    observation, info = env.reset(seed=seed)
    rows = []
    for action in demonstrate(env, quality, np.random.default_rng([seed, 7])):
        rows.append((info["stage"], info["progress"], observation["observation.state"], action))
        observation, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            break
    rows.append((info["stage"], info["progress"], observation["observation.state"], rows[-1][3]))
    stage, progress, states, actions = (np.array(column) for column in zip(*rows, strict=True))
    return Run(info["success"], stage, progress, states, actions)


@pytest.fixture(scope="module")
def runs() -> dict[str, list[Run]]:
    return {quality: [perform(quality, seed) for seed in range(4)] for quality in QUALITIES}


def stillness(run: Run) -> float:
    """Seconds in which the arm hardly moves."""
    return float((np.abs(np.diff(run.states, axis=0)).max(1) < 0.004).sum() / 20)


def test_clean_runs_succeed_within_200_to_500_steps(runs):
    assert all(run.success for run in runs["clean"])
    assert all(200 <= len(run.stage) <= 500 for run in runs["clean"])


def test_clean_runs_pass_the_stages_in_order_and_once(runs):
    for run in runs["clean"]:
        assert [stage for stage, _ in groupby(run.stage.tolist())] == list(range(len(STAGES)))


def test_progress_rises_along_clean_runs_from_the_start_to_one(runs):
    for run in runs["clean"]:
        dips = np.maximum.accumulate(run.progress) - run.progress
        assert dips.max() < 0.04
        assert np.abs(np.diff(run.progress)).max() < 0.10, "a jump"
        assert run.progress[0] < 0.1
        assert run.progress[-1] == 1.0


def test_slow_runs_take_longer_and_pause(runs):
    assert np.mean([len(run.stage) for run in runs["slow"]]) > 1.5 * np.mean([len(run.stage) for run in runs["clean"]])
    assert np.mean([stillness(run) for run in runs["slow"]]) > 2 + np.mean([stillness(run) for run in runs["clean"]])


def test_wandering_runs_make_longer_ways(runs):
    def way(run: Run) -> float:
        return float(np.abs(np.diff(run.states[:, :6], axis=0)).sum())

    assert np.mean([way(run) for run in runs["wandering"]]) > 1.2 * np.mean([way(run) for run in runs["clean"]])


def test_dropping_sets_progress_back_before_success(runs):
    for run in runs["drop_and_regrasp"]:
        dips = np.maximum.accumulate(run.progress) - run.progress
        assert dips.max() > 0.05
        assert run.success


def test_unhurried_but_careful_operators_still_succeed(runs):
    for quality in ("slow", "wandering"):
        assert sum(run.success for run in runs[quality]) >= 3


def test_stopping_partway_fails_and_ends_still(runs):
    for run in runs["stops_partway"]:
        assert not run.success
        assert np.abs(np.diff(run.states[-60:], axis=0)).max() < 0.05
        assert run.progress[-1] < 0.999


def test_wrong_order_fails_in_more_than_one_way(runs):
    assert not any(run.success for run in runs["wrong_order"])
    assert len({tuple(stage for stage, _ in groupby(run.stage.tolist())) for run in runs["wrong_order"]}) > 1


def test_same_seed_gives_the_same_demonstration(runs):
    again = perform("wandering", 0)
    assert np.array_equal(again.actions, runs["wandering"][0].actions)
    assert np.array_equal(again.progress, runs["wandering"][0].progress)


def test_actions_are_noisy_but_within_limits(runs):
    space = make_env("tidy_drawer").action_space
    for quality_runs in runs.values():
        for run in quality_runs:
            assert run.actions.dtype == np.float32
            assert all(space.contains(action) for action in run.actions)
            assert np.abs(np.diff(run.actions[:, :6], axis=0)).max() < FASTEST_JOINT_STEP + 1e-4


def test_unknown_quality_names_the_choices():
    env = make_env("tidy_drawer")
    with pytest.raises(ConfigError, match="drop_and_regrasp"):
        demonstrate(env, "perfect", np.random.default_rng(0))


@pytest.mark.slow
def test_clean_succeeds_98_times_in_100():
    assert sum(perform("clean", seed).success for seed in range(1000, 1100)) >= 98


@pytest.mark.slow
@pytest.mark.parametrize("quality", ["stops_partway", "wrong_order"])
def test_failures_fail_and_never_put_the_cube_inside_by_chance(quality: str):
    runs = [perform(quality, seed) for seed in range(40)]
    assert not any(run.success for run in runs)
    if quality == "wrong_order":
        assert not any(run.stage[-1] == 4 for run in runs)
