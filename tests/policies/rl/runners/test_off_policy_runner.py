"""The loop learns a tiny task, resumes after being killed, and stops with a dump where a value is not finite."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from line_env import LineEnv
from rl_runs import line_context, line_envs

from robo_core.errors import ConfigError, ModelError, RoboError
from robo_policies.rl.algorithms.sac import Sac
from robo_policies.rl.envs.vector_env import MacroActionVectorEnv
from robo_policies.rl.imitation.self_imitation import MIN_SUCCESSES
from robo_policies.rl.runners.off_policy_runner import OffPolicyRunner
from robo_policies.rl.runners.runner import CRASH_FILE, STATE_FILE
from robo_policies.rl.settings import LearningSettings, SacSettings
from robo_policies.rl.storage.replay_buffer import ReplayBuffer
from robo_rm.shaping.potential import TrueProgress

LOOP = LearningSettings(
    action_repeat=4,
    num_envs=2,
    gradient_steps=1,
    learning_starts=20,
    buffer_size=2000,
    evaluate_every=600,
    evaluation_episodes=6,
)
LEARNER = SacSettings(width=32, batch_size=64, learning_rate=2e-3, tau=0.02)


ONE = dataclasses.replace(LOOP, num_envs=1)


def learning(folder: Path, loop: LearningSettings = LOOP, **changes: Any) -> OffPolicyRunner:
    return OffPolicyRunner(line_context(folder, loop, **changes), Sac(3, 1, LEARNER, seed=0))


def first_line(envs: MacroActionVectorEnv) -> Any:
    """The first environment itself."""
    return envs.envs.envs[0].unwrapped  # type: ignore[union-attr]


def recorded(run: OffPolicyRunner, steps: int) -> ReplayBuffer:
    """The replay buffer of a run after so many steps."""
    run.run(steps, nothing)
    assert run.replay is not None
    return run.replay


def nothing(*_: Any) -> None:
    """No callback."""


def test_it_learns_a_tiny_task(tmp_path: Path) -> None:
    run = learning(tmp_path)
    curve = run.run(2400, nothing)
    assert curve[0]["success"] < 0.7
    assert curve[-1]["success"] == 1.0
    assert [point["steps"] for point in curve] == sorted(point["steps"] for point in curve)
    assert [point["episodes"] for point in curve] == sorted(point["episodes"] for point in curve)
    assert curve[-1]["episodes"] == run.state.episodes > 2400 / 40
    assert run.state.steps >= 2400


def test_a_run_that_was_killed_goes_on_as_if_it_was_not(tmp_path: Path) -> None:
    whole = learning(tmp_path / "whole")
    whole.run(600, nothing)
    first = learning(tmp_path / "parts")
    first.run(300, nothing)
    # What the first part evaluated at its end is not part of the resumed run.
    second = learning(tmp_path / "parts")
    assert second.load()
    second.run(600, nothing)
    assert second.state.macro_actions == whole.state.macro_actions
    assert whole.replay is not None
    assert second.replay is not None
    for name in ("observation", "action", "task_reward", "potential", "next_potential"):
        np.testing.assert_allclose(second.replay.floats(name), whole.replay.floats(name), atol=1e-6, err_msg=name)
    for name, value in whole.learner.state().items():
        np.testing.assert_allclose(second.learner.state()[name].numpy(), value.numpy(), atol=1e-4, err_msg=name)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    learning(tmp_path).run(100, nothing)
    with pytest.raises(ModelError, match="other settings"):
        learning(tmp_path, fingerprint="b").load()
    assert not learning(tmp_path / "elsewhere").load()


@pytest.mark.parametrize("damage", ["note", "learner", "replay", "gone"])
def test_a_damaged_checkpoint_is_told(tmp_path: Path, damage: str) -> None:
    learning(tmp_path).run(100, nothing)
    if damage == "note":
        (tmp_path / STATE_FILE).write_text("{")
    else:
        pattern = "learner" if damage == "gone" else damage
        (path,) = tmp_path.glob(f"{pattern}-*.safetensors")
        path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match="damaged"):
        learning(tmp_path).load()


def test_only_the_last_checkpoint_is_kept(tmp_path: Path) -> None:
    run = learning(tmp_path)
    for steps in (100, 200):
        run.run(steps, nothing)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


class Breaks(LineEnv):
    """Reports something that is not finite after some time."""

    what = "observation"

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        if self.steps == 13:
            if self.what == "observation":
                observation["observation.state"][1] = np.nan
            elif self.what == "reward":
                reward = float("inf")
            else:
                info["progress"] = float("nan")
        return observation, reward, terminated, truncated, info


class BreaksReward(Breaks):
    what = "reward"


class BreaksPotential(Breaks):
    what = "potential"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Breaks, "value 1 of the observation"),
        (BreaksReward, "NaN or infinity in a task reward"),
        # Transitions of 4 steps begin at 12; the potential is asked at 16 and what it is at 13 never shows.
        (BreaksPotential, ""),
    ],
    ids=["observation", "reward", "unseen"],
)
def test_a_value_that_is_not_finite_stops_with_a_dump_that_replays(tmp_path: Path, make: Any, message: str) -> None:
    run = learning(tmp_path, ONE, make=make)
    if not message:
        run.run(100, nothing)
        assert not (tmp_path / CRASH_FILE).exists()
        return
    with pytest.raises(RoboError, match=message):
        run.run(400, nothing)
    crash = json.loads((tmp_path / CRASH_FILE).read_text())
    assert message in crash["error"]
    again = line_envs(0, ONE, make)
    before, last = crash["envs"]["actions"][0][:-1], crash["envs"]["actions"][0][-1]
    again.restore({**crash["envs"], "actions": [before]})
    assert first_line(again).steps == 12, "the state before the last macro-action"
    with pytest.raises(RoboError, match=message):
        again.step(np.array([last], dtype=np.float32))


def test_a_potential_that_is_not_finite_stops_with_a_dump(tmp_path: Path) -> None:
    class Lost(TrueProgress):
        asked = 0

        def score(self, observations: Any, which: Any) -> Any:
            self.asked += 1
            value = super().score(observations, which)
            return value * np.nan if self.asked > 8 else value

    run = learning(tmp_path, ONE, potential=Lost())
    with pytest.raises(ModelError, match="the potential of environment 0 is not finite"):
        run.run(400, nothing)
    assert len(json.loads((tmp_path / CRASH_FILE).read_text())["envs"]["actions"][0]) > 0


def test_an_action_that_is_not_finite_stops_with_a_dump_that_replays(tmp_path: Path) -> None:
    run = learning(tmp_path, ONE)
    run.run(120, nothing)
    with torch.no_grad():
        next(iter(run.policy.actor.parameters())).fill_(float("nan"))
    with pytest.raises(ModelError, match="policy's action for environment 0 is"):
        run.run(400, nothing)
    crash = json.loads((tmp_path / CRASH_FILE).read_text())
    assert crash["action"] == [["nan"]]
    again = line_envs(0, ONE)
    again.restore(crash["envs"])
    assert first_line(again).place == first_line(run.envs).place, "the state in which the action was taken"


def test_a_good_prior_acts_from_the_start(tmp_path: Path) -> None:
    def towards_the_goal(observations: Any) -> Any:
        state = observations["observation.state"]
        return np.sign(state[:, 1:2] - state[:, :1]).astype(np.float32)

    sac = Sac(3, 1, LEARNER, seed=0, use_prior=True)
    run = OffPolicyRunner(line_context(tmp_path, LOOP, "sparse", prior=towards_the_goal), sac)
    curve = run.run(800, nothing)
    assert curve[-1]["success"] >= 0.8


def test_a_return_of_no_step_is_refused(tmp_path: Path) -> None:
    loop = dataclasses.replace(LOOP, n_step=0)
    with pytest.raises(ConfigError, match=r"learning\.n_step=0"):
        learning(tmp_path, loop)


@pytest.mark.parametrize(
    ("demonstrated", "successful", "expected"), [(0.5, 0.25, (48, 16)), (0.5, 0.75, (64, 0)), (0.0, 0.25, (64, 0))]
)
def test_successes_take_their_fraction_of_a_batch_from_the_demonstrations(
    tmp_path: Path, demonstrated: float, successful: float, expected: tuple[int, int]
) -> None:
    """Of 64 transitions."""
    loop = dataclasses.replace(LOOP, demonstration_fraction=demonstrated, success_fraction=successful)
    demonstrations = recorded(learning(tmp_path / "shown"), steps=1200)
    sac = Sac(3, 1, LEARNER, seed=0)
    run = OffPolicyRunner(line_context(tmp_path / "run", loop), sac, demonstrations)
    run.replay = demonstrations
    succeeded = {tuple(row) for row in demonstrations.floats("observation")[demonstrations.successful].tolist()}
    assert 0 < len(succeeded) < len(demonstrations)
    batches = list(run._batches(3))
    assert len(batches) == 3
    for own, shown in batches:
        assert (len(own.reward), len(shown.reward) if shown is not None else 0) == expected
        known = [tuple(row) in succeeded for row in own.observation[:, :-1].tolist()]
        assert all(known[len(known) - round(64 * successful) :])


def test_it_learns_from_n_step_returns(tmp_path: Path) -> None:
    run = learning(tmp_path, dataclasses.replace(LOOP, n_step=3))
    assert run.run(2400, nothing)[-1]["success"] == 1.0


def away_from_the_goal(observations: Any) -> Any:
    state = observations["observation.state"]
    return -0.5 * np.sign(state[:, 1:2] - state[:, :1]).astype(np.float32)


@pytest.mark.parametrize(("fraction", "controlled"), [(0.5, [1, 3, 5, 7]), (0.0, []), (1.0, list(range(8)))])
def test_the_prior_controls_its_fraction_of_the_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fraction: float, controlled: list[int]
) -> None:
    """With its own noise, every other one of them with wide noise; the rest is the critics' choice."""
    loop = dataclasses.replace(LOOP, learning_starts=0, prior_episode_fraction=fraction, gradient_steps=0)
    sac = Sac(3, 1, LEARNER, seed=0, use_prior=True)
    chosen = np.full((2, 1), 0.9, np.float32)
    monkeypatch.setattr(sac, "act", lambda *_, **__: (chosen, np.zeros(2, bool)))
    run = OffPolicyRunner(line_context(tmp_path, loop, "sparse", seed=70, prior=away_from_the_goal), sac)
    envs = run.envs
    run._begin()
    off: dict[int, list[float]] = {}
    while envs.seeds.min() < 70 + 40:
        seeds, prior = envs.seeds - 70, envs.prior_actions()
        assert prior is not None
        action = run._exploration_action()
        for number, near, taken in zip(seeds.tolist(), prior[:, 0], action[:, 0], strict=True):
            off.setdefault(number, []).append(float("nan") if taken == chosen[0, 0] else abs(float(near - taken)))
        envs.step(action)
    means = {number: float(np.mean(values)) for number, values in off.items() if number < 40}
    assert [number for number, mean in means.items() if np.isfinite(mean)][: len(controlled)] == controlled
    assert all(np.isfinite(means[number]) == (number in controlled) for number in range(8))
    if controlled:
        ours = [mean for mean in means.values() if np.isfinite(mean)]
        wide, narrow = ours[1::2], ours[::2]
        assert np.mean(wide) > 2 * np.mean(narrow) > 0.1


def test_the_prior_controls_no_episode_once_enough_have_succeeded(tmp_path: Path) -> None:
    run = learning(tmp_path)
    run._begin()
    assert run._prior_controlled()[0].tolist() == [False, True]
    run.state.successes = MIN_SUCCESSES - 1
    assert run._prior_controlled()[0].any()
    run.run(2400, nothing)
    assert run.state.successes >= MIN_SUCCESSES
    assert not run._prior_controlled()[0].any()


@pytest.mark.parametrize("name", ["prior_episode_fraction", "success_fraction"])
def test_a_fraction_above_one_is_refused(tmp_path: Path, name: str) -> None:
    loop = dataclasses.replace(LOOP, **{name: 1.5})
    with pytest.raises(ConfigError, match=rf"{name}=1\.5"):
        learning(tmp_path, loop)
