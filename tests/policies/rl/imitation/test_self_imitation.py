"""The prior is retrained on successes, its stored actions are replaced, and a run resumes as if it was not killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rl_runs import line_context

from robo_core.errors import ConfigError, ModelError
from robo_policies.rl.algorithms.sac import Sac
from robo_policies.rl.imitation.behavior_prior import ClonedPrior
from robo_policies.rl.imitation.self_imitation import MIN_EPISODES, MIN_SUCCESSES, SelfImitation, came_further
from robo_policies.rl.runners.off_policy_runner import OffPolicyRunner
from robo_policies.rl.settings import LearningSettings, SacSettings
from robo_policies.rl.storage.replay_buffer import ReplayBuffer

STEPS = 150


def episode(
    number: int, action: float, succeeds: bool, count: int = 3, progress: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Transitions with a progress before each and after the last, (count + 1,)."""
    rng = np.random.default_rng(number)
    last = np.arange(count) == count - 1
    progress = np.zeros(count + 1) if progress is None else progress
    return {
        "observation": rng.normal(size=(count, 2)), "next_observation": rng.normal(size=(count, 2)),
        "action": np.full((count, 1), action), "next_prior_action": np.zeros((count, 1)),
        "task_reward": 1.0 * (last & succeeds), "potential": progress[:-1], "next_potential": progress[1:],
        "start_potential": np.full(count, progress[0]), "terminated": last & succeeds,
        "truncated": last & (not succeeds), "steps": np.ones(count), "episode": np.full(count, number),
    }  # fmt: skip


def replay(*episodes: tuple[float, bool], first: int = 0) -> ReplayBuffer:
    made = ReplayBuffer(500, 2, 1, "simulator")
    for number, (action, succeeds) in enumerate(episodes):
        made.add(episode(first + number, action, succeeds), "simulator")
    return made


def cloned(demonstrations: ReplayBuffer, filtered: bool = False, growth: float = 2.0) -> SelfImitation:
    again = SelfImitation(ClonedPrior(2, 1, 16, 0), demonstrations, STEPS, growth, filtered)
    again.begin()
    return again


def halting(number: int, first: float, then: float) -> dict[str, np.ndarray]:
    """An episode that makes progress by one action and then none by another."""
    made = episode(number, first, False, 12, np.concatenate([np.linspace(0, 0.5, 7), np.full(6, 0.5)]))
    made["action"][6:] = then
    made["observation"][:] = 0  # the observations say nothing
    return made


@pytest.mark.parametrize(("growth", "due"), [(2.0, [4, 8, 16]), (1.4, [4, 6, 9, 13])])
def test_it_waits_for_enough_successes_and_then_until_they_have_grown(growth: float, due: list[int]) -> None:
    again, own = cloned(replay((-0.5, False)), growth=growth), replay((0.9, False))
    learnt = []
    for number in range(1, 4 * MIN_SUCCESSES + 1):
        own.add(episode(100 + number, 0.5, True), "simulator")
        if again.update(own):
            learnt.append(number)
    assert learnt == due


@pytest.mark.parametrize("growth", [1.0, 0.5, float("inf"), float("nan")])
def test_successes_must_grow(growth: float) -> None:
    with pytest.raises(ConfigError, match="self_imitation_growth"):
        cloned(replay((-0.5, False)), growth=growth)


def test_what_failed_is_cloned_no_more_and_stored_actions_are_replaced() -> None:
    shown = replay((-0.5, False), (-0.5, False))
    again = cloned(shown)
    assert np.abs(shown.floats("next_prior_action") + 0.5).max() < 0.2
    own = replay((-0.9, False), *[(0.5, True)] * MIN_SUCCESSES, first=10)
    assert again.update(own)
    for name, there in (("demonstrations", shown), ("own", own)):
        assert np.abs(there.floats("next_prior_action") - 0.5).max() < 0.2, name


def test_demonstrations_that_succeed_are_cloned_with_the_learners_own() -> None:
    shown = replay(*[(-0.5, True)] * MIN_SUCCESSES, (0.9, False))
    again, own = cloned(shown), replay(*[(0.5, True)] * MIN_SUCCESSES, first=10)
    for there in (shown, own):  # the observations say nothing
        there.floats("observation")[:] = 0
    assert again.update(own)
    assert abs(float(own.floats("next_prior_action").mean())) < 0.2


def test_a_filtered_prior_learns_from_what_made_progress_until_something_succeeds() -> None:
    shown = replay()
    for number in range(3):
        shown.add(halting(number, 0.6, -0.6), "simulator")
    assert abs(float(cloned(shown).prior.act(shown.floats("observation")).mean())) < 0.2
    again = cloned(shown, filtered=True)
    assert float(again.prior.act(shown.floats("observation")).min()) > 0.4
    own = ReplayBuffer(500, 2, 1, "simulator")
    for number in range(MIN_EPISODES - 1):
        own.add(halting(10 + number, 0.9, -0.6), "simulator")
    assert not again.update(own)
    own.add(halting(30, 0.9, -0.6), "simulator")
    assert again.update(own)
    assert not again.update(own)
    assert float(own.floats("next_prior_action")[0, 0]) > 0.65


def test_what_came_further_from_the_same_progress_is_chosen() -> None:
    shown, own = ReplayBuffer(500, 2, 1, "simulator"), ReplayBuffer(500, 2, 1, "simulator")
    for number in range(4):
        shown.add(episode(number, 0.1, False, 6, np.r_[np.linspace(0, 0.4, 6), 0.3]), "simulator")
    own.add(episode(10, 0.2, False, 6, np.r_[np.linspace(0, 0.4, 6), 0.8]), "simulator")
    own.add(episode(11, 0.3, True, 6, np.zeros(7)), "simulator")
    mine, theirs = came_further(own, shown)
    assert mine.all()
    # At 0 two came further and four did not; past the 0.4 where those ended only the one that went on rises.
    assert not theirs.any()
    (alone,) = came_further(shown)
    assert alone.reshape(4, 6)[:, :5].all()
    assert not alone.reshape(4, 6)[:, 5].any()


def test_what_fell_back_is_not_chosen_and_what_rose_later_is() -> None:
    own = ReplayBuffer(500, 2, 1, "simulator")
    own.add(episode(1, 0.5, False, 5, np.array([0.3, 0.2, 0.5, 0.5, 0.1, 0.1])), "simulator")
    own.add(episode(2, 0.5, False, 5, np.array([0.3, 0.2, 0.1, 0.1, 0.1, 0.1])), "simulator")
    (chosen,) = came_further(own)
    assert chosen.tolist() == [True, True, False, False, False, *[False] * 5]


@pytest.mark.parametrize(("growth", "due"), [(2.0, [4, 8, 16]), (1.4, [4, 6, 9, 13])])
def test_a_filtered_prior_waits_until_the_episodes_have_grown(growth: float, due: list[int]) -> None:
    shown = replay()
    shown.add(halting(0, 0.6, -0.6), "simulator")
    again, own = cloned(shown, filtered=True, growth=growth), ReplayBuffer(500, 2, 1, "simulator")
    learnt = []
    for number in range(1, 17):
        own.add(halting(number, 0.9, -0.6), "simulator")
        if again.update(own):
            learnt.append(number)
    assert learnt[: len(due)] == due


def test_without_a_potential_everything_is_cloned() -> None:
    shown = replay((0.5, False), (0.5, False))
    again = cloned(shown, filtered=True)
    assert abs(float(shown.floats("next_prior_action").mean()) - 0.5) < 0.2
    own = replay(*[(0.9, False)] * 2 * MIN_EPISODES, first=10)
    assert not again.update(own)


def test_a_prior_of_another_run_is_refused() -> None:
    again = cloned(replay((-0.5, False)))
    with pytest.raises(ModelError, match="behaviour prior"):
        again.load_state({"self_imitation": torch.tensor([4, 8])})
    held = again.state()
    del held["self_imitation"]
    with pytest.raises(ModelError, match="self_imitation"):
        again.load_state(held)


def run_of(folder: Path) -> OffPolicyRunner:
    """A learner that has only seen somebody walk away from the goal."""
    shown = replay((-1.0, False), (-0.8, False))
    again = cloned(shown)
    loop = LearningSettings(
        action_repeat=4,
        num_envs=2,
        gradient_steps=1,
        learning_starts=4,
        buffer_size=500,
        evaluate_every=10_000,
        evaluation_episodes=2,
    )

    learner = SacSettings(width=32, batch_size=32, learning_rate=2e-3, tau=0.02)
    sac = Sac(3, 1, learner, 0, use_prior=True)
    return OffPolicyRunner(line_context(folder, loop, prior=again.prior), sac, shown, again)


def nothing(*_: Any) -> None:
    """No callback."""


def test_a_run_killed_before_or_after_the_prior_was_retrained_goes_on_as_if_it_was_not(tmp_path: Path) -> None:
    whole = run_of(tmp_path / "whole")
    whole.run(1400, nothing)
    assert whole.replay is not None

    def successes(run: OffPolicyRunner) -> int:
        assert run.replay is not None
        return len(np.unique(run.replay.numbers("episode")[run.replay.successful]))

    assert successes(whole) >= 2 * MIN_SUCCESSES
    for stop, learnt in ((200, False), (900, True)):
        folder = tmp_path / str(stop)
        run_of(folder).run(stop, nothing)
        second = run_of(folder)
        assert second.load()
        assert (successes(second) >= MIN_SUCCESSES) is learnt
        second.run(1400, nothing)
        assert second.replay is not None
        for name in ("observation", "action", "next_prior_action", "task_reward"):
            np.testing.assert_allclose(
                second.replay.floats(name), whole.replay.floats(name), atol=1e-4, err_msg=f"{stop} {name}"
            )
