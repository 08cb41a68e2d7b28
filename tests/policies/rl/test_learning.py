"""The loop learns a tiny task, goes on after being killed, and stops with a dump where a number is none."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from line_world import LineWorld

from robo_core.errors import ConfigError, ModelError, RoboError
from robo_policies.rl.cloning_again import FEWEST
from robo_policies.rl.decisions import DecisionWorlds, action_map
from robo_policies.rl.learning import CRASH, NOTE, Learning
from robo_policies.rl.replay import Replay
from robo_policies.rl.sac import Sac
from robo_policies.rl.settings import LearningSettings, SacSettings
from robo_rm.shaping.modes import ShapingSettings
from robo_rm.shaping.potential import TrueProgress

LOOP = LearningSettings(
    repeat=4, worlds=2, updates_per_decision=1, warmup=20, capacity=2000, evaluate_every=600, evaluation_episodes=6
)
LEARNER = SacSettings(width=32, batch=64, learning_rate=2e-3, tau=0.02)


def worlds(seed: int, count: int = 2, propose: Any = None, make: Any = LineWorld) -> DecisionWorlds:
    made = [make() for _ in range(count)]
    mapping = action_map(made[0].action_space, LOOP.repeat)
    return DecisionWorlds(made, mapping, TrueProgress(), LOOP.discount, seed, propose)


def learning(folder: Path, fingerprint: str = "a", **changes: Any) -> Learning:
    sac = Sac(3, 1, LEARNER, seed=0)
    return Learning(worlds(0, **changes), worlds, sac, None, ShapingSettings("pbrs"), LOOP, 0, folder, fingerprint)


def recorded(run: Learning, steps: int) -> Replay:
    """What a run had in its replay after so many steps."""
    run.run(steps, nothing)
    assert run.replay is not None
    return run.replay


def nothing(*_: Any) -> None:
    """Nobody to tell."""


def test_it_learns_a_tiny_task(tmp_path: Path) -> None:
    run = learning(tmp_path)
    curve = run.run(2400, nothing)
    assert curve[0]["success"] < 0.7
    assert curve[-1]["success"] == 1.0
    assert [point["steps"] for point in curve] == sorted(point["steps"] for point in curve)
    assert [point["episodes"] for point in curve] == sorted(point["episodes"] for point in curve)
    assert curve[-1]["episodes"] == run.note.episodes > 2400 / 40
    assert run.note.steps >= 2400


def test_a_run_that_was_killed_goes_on_as_if_it_was_not(tmp_path: Path) -> None:
    whole = learning(tmp_path / "whole")
    whole.run(600, nothing)
    first = learning(tmp_path / "parts")
    first.run(300, nothing)
    # What the first part evaluated at its end is no part of a run that goes on.
    second = learning(tmp_path / "parts")
    assert second.load()
    second.run(600, nothing)
    assert second.note.decisions == whole.note.decisions
    assert whole.replay is not None
    assert second.replay is not None
    for name in ("observation", "action", "gold", "potential", "next_potential", "terminated", "steps"):
        np.testing.assert_allclose(second.replay[name], whole.replay[name], atol=1e-6, err_msg=name)
    for name, value in whole.sac.state().items():
        np.testing.assert_allclose(second.sac.state()[name].numpy(), value.numpy(), atol=1e-4, err_msg=name)


def test_a_checkpoint_of_another_run_is_not_taken_up(tmp_path: Path) -> None:
    learning(tmp_path).run(100, nothing)
    with pytest.raises(ModelError, match="other settings"):
        learning(tmp_path, fingerprint="b").load()
    assert not learning(tmp_path / "elsewhere").load()


@pytest.mark.parametrize("damage", ["note", "learner", "replay", "gone"])
def test_a_damaged_checkpoint_is_told(tmp_path: Path, damage: str) -> None:
    learning(tmp_path).run(100, nothing)
    if damage == "note":
        (tmp_path / NOTE).write_text("{")
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


class Breaks(LineWorld):
    """Tells something that is no number after some time."""

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
        (BreaksReward, "NaN or infinity in a gold reward"),
        # Decisions of 4 steps begin at 12; the potential is asked at 16 and what it is at 13 never shows.
        (BreaksPotential, ""),
    ],
    ids=["observation", "reward", "unseen"],
)
def test_a_number_that_is_none_stops_with_a_dump_that_replays(tmp_path: Path, make: Any, message: str) -> None:
    run = learning(tmp_path, count=1, make=make)
    if not message:
        run.run(100, nothing)
        assert not (tmp_path / CRASH).exists()
        return
    with pytest.raises(RoboError, match=message):
        run.run(400, nothing)
    crash = json.loads((tmp_path / CRASH).read_text())
    assert message in crash["error"]
    again = worlds(0, count=1, make=make)
    before, last = crash["worlds"]["actions"][0][:-1], crash["worlds"]["actions"][0][-1]
    again.restore({**crash["worlds"], "actions": [before]})
    assert again.worlds[0].unwrapped.steps == 12, "the state of the last decision"  # type: ignore[union-attr]
    with pytest.raises(RoboError, match=message):
        again.step(np.array([last], dtype=np.float32))


def test_a_potential_that_is_no_number_stops_with_a_dump(tmp_path: Path) -> None:
    class Lost(TrueProgress):
        asked = 0

        def score(self, observations: Any, which: Any) -> Any:
            self.asked += 1
            value = super().score(observations, which)
            return value * np.nan if self.asked > 8 else value

    run = learning(tmp_path, count=1)
    run.worlds.potential = Lost()
    with pytest.raises(ModelError, match="the potential of world 0 is not a number"):
        run.run(400, nothing)
    assert len(json.loads((tmp_path / CRASH).read_text())["worlds"]["actions"][0]) > 0


def test_an_action_that_is_no_number_stops_with_a_dump_that_replays(tmp_path: Path) -> None:
    run = learning(tmp_path, count=1)
    run.run(120, nothing)
    with torch.no_grad():
        next(iter(run.sac.actor.parameters())).fill_(float("nan"))
    with pytest.raises(ModelError, match="policy's action for world 0 is"):
        run.run(400, nothing)
    crash = json.loads((tmp_path / CRASH).read_text())
    assert crash["action"] == [["nan"]]
    again = worlds(0, count=1)
    again.restore(crash["worlds"])
    place = again.worlds[0].unwrapped.place  # type: ignore[union-attr]
    assert place == run.worlds.worlds[0].unwrapped.place, "the state in which the action was taken"


def test_proposals_of_a_good_policy_are_taken_from_the_start(tmp_path: Path) -> None:
    def towards_the_goal(observations: Any) -> Any:
        state = observations["observation.state"]
        return np.sign(state[:, 1:2] - state[:, :1]).astype(np.float32)

    def proposing(seed: int) -> DecisionWorlds:
        return worlds(seed, propose=towards_the_goal)

    sac = Sac(3, 1, LEARNER, seed=0, proposals=True)
    run = Learning(proposing(0), proposing, sac, None, ShapingSettings("sparse"), LOOP, 0, tmp_path, "a")
    curve = run.run(800, nothing)
    assert curve[-1]["success"] >= 0.8


def test_a_return_of_no_decision_is_refused(tmp_path: Path) -> None:
    loop = dataclasses.replace(LOOP, ahead=0)
    with pytest.raises(ConfigError, match=r"learning\.ahead=0"):
        Learning(worlds(0), worlds, Sac(3, 1, LEARNER, 0), None, ShapingSettings("sparse"), loop, 0, tmp_path, "a")


@pytest.mark.parametrize(
    ("shown", "share", "expected"), [(0.5, 0.25, (48, 16)), (0.5, 0.75, (64, 0)), (0.0, 0.25, (64, 0))]
)
def test_successes_take_their_share_of_a_batch_from_the_demonstrations(
    tmp_path: Path, shown: float, share: float, expected: tuple[int, int]
) -> None:
    """Of 64 decisions."""
    loop = dataclasses.replace(LOOP, demonstration_share=shown, success_share=share)
    demonstrations = recorded(learning(tmp_path / "shown"), steps=1200)
    sac = Sac(3, 1, LEARNER, seed=0)
    run = Learning(worlds(0), worlds, sac, demonstrations, ShapingSettings("pbrs"), loop, 0, tmp_path / "run", "a")
    run.replay = demonstrations
    succeeded = {tuple(row) for row in demonstrations["observation"][demonstrations.led_to_success].tolist()}
    assert 0 < len(succeeded) < len(demonstrations)
    batches = list(run._batches(3))
    assert len(batches) == 3
    for fresh, demonstrated in batches:
        assert (len(fresh.reward), len(demonstrated.reward) if demonstrated is not None else 0) == expected
        own = [tuple(row) in succeeded for row in fresh.observation[:, :-1].tolist()]
        assert all(own[len(own) - round(64 * share) :])


def test_it_learns_from_returns_of_several_decisions(tmp_path: Path) -> None:
    loop, sac = dataclasses.replace(LOOP, ahead=3), Sac(3, 1, LEARNER, seed=0)
    run = Learning(worlds(0), worlds, sac, None, ShapingSettings("pbrs"), loop, 0, tmp_path, "a")
    assert run.run(2400, nothing)[-1]["success"] == 1.0


def away_from_the_goal(observations: Any) -> Any:
    state = observations["observation.state"]
    return -0.5 * np.sign(state[:, 1:2] - state[:, :1]).astype(np.float32)


@pytest.mark.parametrize(("share", "led"), [(0.5, [1, 3, 5, 7]), (0.0, []), (1.0, list(range(8)))])
def test_the_clone_carries_out_its_share_of_the_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, led: list[int]
) -> None:
    """With its own noise, every other one of them with wide noise; the rest is the critics' choice."""
    loop = dataclasses.replace(LOOP, warmup=0, clone_share=share, updates_per_decision=0)
    sac = Sac(3, 1, LEARNER, seed=0, proposals=True)
    chosen = np.full((2, 1), 0.9, np.float32)
    monkeypatch.setattr(sac, "act", lambda *_, **__: (chosen, np.zeros(2, bool)))
    made = worlds(70, propose=away_from_the_goal)
    run = Learning(made, worlds, sac, None, ShapingSettings("sparse"), loop, 70, tmp_path, "a")
    run._begin()
    off: dict[int, list[float]] = {}
    while made.seeds.min() < 70 + 40:
        seeds, proposed = made.seeds - 70, made.proposals()
        assert proposed is not None
        action = run._choose()
        for number, near, taken in zip(seeds.tolist(), proposed[:, 0], action[:, 0], strict=True):
            off.setdefault(number, []).append(float("nan") if taken == chosen[0, 0] else abs(float(near - taken)))
        made.step(action)
    means = {number: float(np.mean(values)) for number, values in off.items() if number < 40}
    assert [number for number, mean in means.items() if np.isfinite(mean)][: len(led)] == led
    assert all(np.isfinite(means[number]) == (number in led) for number in range(8))
    if led:
        ours = [mean for mean in means.values() if np.isfinite(mean)]
        wide, narrow = ours[1::2], ours[::2]
        assert np.mean(wide) > 2 * np.mean(narrow) > 0.1


def test_the_clone_leads_no_more_once_enough_has_succeeded(tmp_path: Path) -> None:
    run = learning(tmp_path)
    run._begin()
    assert run._led()[0].tolist() == [False, True]
    run.note.successes = FEWEST - 1
    assert run._led()[0].any()
    run.run(2400, nothing)
    assert run.note.successes >= FEWEST
    assert not run._led()[0].any()


@pytest.mark.parametrize("name", ["clone_share", "success_share"])
def test_a_share_above_one_is_refused(tmp_path: Path, name: str) -> None:
    loop = dataclasses.replace(LOOP, **{name: 1.5})
    with pytest.raises(ConfigError, match=rf"{name}=1\.5"):
        Learning(worlds(0), worlds, Sac(3, 1, LEARNER, 0), None, ShapingSettings("sparse"), loop, 0, tmp_path, "a")
