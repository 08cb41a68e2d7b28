"""The command: from demonstrations to a policy that loads, with every potential, and bad input in one line."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from line_env import LineEnv, WeatheredLine, line_ensemble, line_model, line_store

from robo_core.errors import ConfigError, ModelError, RoboError, StoreError
from robo_policies import load_policy
from robo_policies.commands import train_rl
from robo_policies.rl.algorithms import compilation
from robo_policies.rl.algorithms.sac_losses import actor_loss, critic_loss
from robo_policies.rl.runners import experiment
from robo_policies.rl.runners.experiment import Experiment
from robo_policies.rl.settings import (
    IqlSettings,
    LearnerSettings,
    LearningSettings,
    RunSettings,
    SacSettings,
    Sb3PpoSettings,
    Sb3SacSettings,
)
from robo_rm.shaping.settings import ShapingSettings

LOOP = LearningSettings(
    action_repeat=4, gradient_steps=1, learning_starts=10, buffer_size=2000, evaluate_every=400, evaluation_episodes=5,
    prior_steps=300, discount=0.98,
)  # fmt: skip
LEARNER = SacSettings(width=32, batch_size=64, learning_rate=2e-3, tau=0.02)


@pytest.fixture(autouse=True)
def line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "make_env", lambda name, max_steps=None: LineEnv(max_steps or 40))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(line_store(tmp_path_factory.mktemp("line") / "demos.zarr").path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return line_model(tmp_path_factory.mktemp("model") / "rm")


def settings(out: Path, store: Path | None, **changes: Any) -> train_rl.Config:
    values: dict[str, Any] = {
        "env": "line",
        "out": str(out),
        "store": str(store) if store else None,
        "steps": 800,
        "learning": LOOP,
        "learner": LEARNER,
        "device": "cpu",
        "shaping": ShapingSettings("pbrs" if {"potential", "reward_model"} & set(changes) else "sparse"),
    }
    return train_rl.Config(**{**values, **changes})


def succeed(policy: Any, episodes: int) -> float:
    """Share of episodes that the policy solves, run as an evaluation would."""
    solved = 0
    for seed in range(episodes):
        env = LineEnv()
        policy.reset()
        observation, _ = env.reset(seed=seed)
        over = False
        while not over:
            images = env.render_cameras(["front"]) if policy.cameras else {}
            for action in policy.act({**observation, **images}):
                observation, reward, terminated, truncated, _ = env.step(action)
                solved += int(reward)
                over = terminated or truncated
                if over:
                    break
    return solved / episodes


def test_true_progress_from_demonstrations_to_a_policy(tmp_path: Path, store: Path) -> None:
    train_rl.run(settings(tmp_path, store, potential="true"))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["success"] == 1.0
    assert metrics["steps_to_90"] <= 800
    assert (tmp_path / "curve.png").stat().st_size > 5000
    assert list((tmp_path / "tensorboard").glob("events*"))
    policy = load_policy(tmp_path)
    assert policy.chunk_size == policy.execution_horizon == 4
    assert succeed(policy, 8) == 1.0
    with pytest.raises(ModelError, match="needs 'observation"):
        policy.act({})


def test_a_policy_learnt_with_compiled_losses_loads_without_a_compiler(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_rl.run(settings(tmp_path, store, potential="true", steps=60))
    card = json.loads((tmp_path / "rl_policy.json").read_text())
    card["learner"]["compile"] = True
    (tmp_path / "rl_policy.json").write_text(json.dumps(card))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    observation, _ = LineEnv().reset(seed=0)
    assert load_policy(tmp_path).act(observation).shape == (4, 1)


def test_a_learned_potential_goes_into_the_policy(tmp_path: Path, store: Path, model: Path) -> None:
    train_rl.run(settings(tmp_path, store, reward_model=str(model), steps=500))
    policy = load_policy(tmp_path)
    assert set(policy.cameras) == {"observation.images.front"}
    assert policy.follows_episodes
    env = LineEnv()
    alone, together = [], []
    for first, rows in ((0, alone), (3, together)):
        policy.reset()
        observation, _ = env.reset(seed=5)
        for _ in range(5):
            seen = {**observation, **env.render_cameras(["front"])}
            if rows is alone:
                rows.append(policy.act(seen))
            else:
                batch = {key: np.stack([np.zeros_like(value), value]) for key, value in seen.items()}
                rows.append(policy.act(batch, which=[0, first])[1])
            for action in rows[-1]:
                observation, *_ = env.step(action)
    np.testing.assert_allclose(alone, together, atol=1e-4)


OTHERS: list[tuple[LearnerSettings, dict[str, Any]]] = [
    (IqlSettings(width=32, batch_size=64, learning_rate=2e-3), {"steps": 600}),
    (
        IqlSettings(width=32, batch_size=64, learning_rate=2e-3, reward="preferences", preference_steps=50),
        {"steps": 60},
    ),
    (Sb3PpoSettings(width=16, batch_size=16, rollout_steps=16, epochs=2), {"steps": 200}),
    (Sb3SacSettings(width=16, batch_size=16), {"steps": 200}),
]


@pytest.mark.parametrize(("learner", "changes"), OTHERS, ids=["iql", "preferences", "ppo", "sac"])
def test_other_learners_come_to_a_policy_that_loads(
    tmp_path: Path, store: Path, learner: LearnerSettings, changes: dict[str, Any]
) -> None:
    train_rl.run(settings(tmp_path, store, potential="true", learner=learner, **changes))
    policy = load_policy(tmp_path)
    assert policy.chunk_size == 4
    assert policy.cameras == {}
    assert json.loads((tmp_path / "rl_policy.json").read_text())["learner"]["name"] == learner.name
    solved = succeed(policy, 6)
    if learner is OTHERS[0][0]:
        assert solved == 1.0
    train_rl.run(settings(tmp_path, store, potential="true", learner=learner, **{**changes, "steps": 700}))


def test_offline_policies_need_no_reward_model_and_baselines_do(tmp_path: Path, store: Path, model: Path) -> None:
    for name, learner in (("iql", IqlSettings(width=16, batch_size=16)), ("ppo", OTHERS[2][0])):
        train_rl.run(settings(tmp_path / name, store, reward_model=str(model), steps=40, learner=learner))
        assert bool(load_policy(tmp_path / name).cameras) == (name == "ppo")


MODES = [
    ShapingSettings("multi_critic"),
    ShapingSettings("bilevel"),
    ShapingSettings("additive", occupancy=0.1),
    ShapingSettings("bilevel", occupancy=0.1),
]


@pytest.mark.parametrize("shaping", MODES, ids=["multi_critic", "bilevel", "chi_squared", "both"])
def test_modes_with_a_half_in_the_learner_resume_and_load(
    tmp_path: Path, store: Path, shaping: ShapingSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"potential": "true", "shaping": shaping}
    train_rl.run(settings(tmp_path, store, steps=120, **given))
    shown = capsys.readouterr().out
    assert ("occupancy" in shown) == (shaping.occupancy > 0)
    assert shaping.mode in shown
    train_rl.run(settings(tmp_path, store, steps=200, **given))
    assert "resuming at 12" in capsys.readouterr().out
    policy = load_policy(tmp_path)
    env = LineEnv()
    assert policy.act(env.reset(seed=0)[0]).shape == (4, 1)


def test_a_learnt_blend_and_a_penalty_do_not_hover_where_progress_as_a_reward_does(tmp_path: Path, store: Path) -> None:
    """The environment ends at success, so an agent that is paid for progress waits in front of the goal."""
    loop = replace(LOOP, discount=0.99, prior_steps=0, evaluate_every=2000)
    success = {}
    for name, shaping in {
        "additive": ShapingSettings("additive"),
        "blend": ShapingSettings("bilevel"),
        "penalty": ShapingSettings("additive", occupancy=1.0),
    }.items():
        # A blend learns from what is tried beside the goal, so this learner tries wide.
        learner = replace(LEARNER, imitation_weight=0.0, temperature=0.02, target_entropy=-0.5)
        given = {"learning": loop, "learner": learner, "potential": "true", "shaping": shaping, "steps": 2000}
        train_rl.run(settings(tmp_path / name, store, **given))
        success[name] = json.loads((tmp_path / name / "metrics.json").read_text())["success"]
    assert success["additive"] <= 0.2
    assert success["blend"] >= 0.8
    assert success["penalty"] >= 0.6


def test_an_ensembles_rule_is_part_of_the_policy_and_its_drift_is_watched(
    tmp_path: Path, store: Path, model: Path
) -> None:
    both = line_ensemble(tmp_path / "ensemble")
    worst = ShapingSettings("pbrs", ensemble="worst")
    train_rl.run(settings(tmp_path / "rl", store, reward_model=str(both), steps=1600, shaping=worst))
    metrics = json.loads((tmp_path / "rl" / "metrics.json").read_text())
    assert metrics["training_drift"] > 0
    card = json.loads((tmp_path / "rl" / "rl_policy.json").read_text())
    assert card["ensemble"] == {"rule": "worst", "pessimism": 5.0}
    policy = load_policy(tmp_path / "rl")
    assert set(policy.cameras) == {"observation.images.front"}
    page = (tmp_path / "rl" / "report.html").read_text()
    assert "Is the reward being hacked?" in page
    assert "times as uncertain as on demonstrations" in page
    lcb = ShapingSettings("pbrs", ensemble="lcb")
    with pytest.raises(ModelError, match="other settings"):
        train_rl.run(settings(tmp_path / "rl", store, reward_model=str(both), steps=1600, shaping=lcb))
    with pytest.raises(ConfigError, match="a single one"):
        train_rl.run(settings(tmp_path / "no", store, reward_model=str(model), shaping=worst))


def test_the_same_command_resumes(tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_rl.run(settings(tmp_path, store, steps=200))
    train_rl.run(settings(tmp_path, store, steps=400))
    assert "resuming at 20" in capsys.readouterr().out
    with pytest.raises(ModelError, match="other settings"):
        train_rl.run(settings(tmp_path, store, steps=400, seed=1))
    train_rl.run(settings(tmp_path, store, steps=200, seed=1, overwrite=True))


def test_a_cap_in_minutes_says_that_it_ended_the_run(
    tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_rl.run(settings(tmp_path, store, steps=120, minutes=1e-6))
    assert re.search(r"warning: minutes=1e-06 ended the training at step \d+ of 120", capsys.readouterr().out)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["ended_by"], metrics["planned_steps"]) == ("minutes", 120)
    assert '"ended_by": "minutes"' in (tmp_path / "rl_policy.json").read_text()
    train_rl.run(settings(tmp_path, store, steps=120))
    assert "warning: minutes" not in capsys.readouterr().out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["ended_by"] == "steps"
    assert metrics["steps"] >= 120


def test_a_run_made_longer_compiles_and_resumes(
    tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []
    monkeypatch.setenv("CXX", "g++")
    monkeypatch.setattr(torch, "compile", lambda function, **_: compiled.append(function) or function)
    monkeypatch.setattr(compilation, "MIN_STEPS", 300)
    train_rl.run(settings(tmp_path, store, steps=200))
    assert not compiled
    assert "compiling" not in capsys.readouterr().out
    train_rl.run(settings(tmp_path, store, steps=400))
    assert {critic_loss, actor_loss} <= set(compiled)
    output = capsys.readouterr().out
    assert "compiling" in output
    assert "resuming at 20" in output


def test_a_damaged_policy_is_refused(tmp_path: Path, store: Path) -> None:
    train_rl.run(settings(tmp_path, store, steps=100))
    weights = tmp_path / "rl_policy.safetensors"
    raw = weights.read_bytes()
    weights.write_bytes(raw[:-10])
    with pytest.raises(ModelError, match="checksum"):
        load_policy(tmp_path)
    weights.write_bytes(raw)
    card = tmp_path / "rl_policy.json"
    good = card.read_text()
    for other, advice in ((9, "upgrade"), (1, "train it again")):
        card.write_text(good.replace('"format": 2', f'"format": {other}'))
        with pytest.raises(ModelError, match=advice):
            load_policy(tmp_path)


WRONG: list[tuple[dict[str, Any], type[RoboError], str]] = [
    ({"out": ""}, ConfigError, "out is empty"),
    ({"steps": 0}, ConfigError, "steps=0"),
    ({"shaping": ShapingSettings("pbrs")}, ConfigError, "shaping=pbrs needs a potential"),
    ({"shaping": ShapingSettings("dense")}, ConfigError, "'dense' is not known"),
    ({"potential": "good"}, ConfigError, "potential='good'"),
    ({"potential": "model"}, ConfigError, "needs reward_model"),
    ({"demonstrations": 0}, ConfigError, "demonstrations=0"),
    ({"reward_model": "/nowhere"}, ModelError, "no model folder"),
    ({"policy": "/nowhere"}, ModelError, "not a folder"),
    (
        {"shaping": ShapingSettings("bilevel"), "potential": "true", "learner": IqlSettings()},
        ConfigError,
        "learner=sac",
    ),
    (
        {"shaping": ShapingSettings("pbrs", occupancy=1.0), "potential": "true", "store": None},
        ConfigError,
        "give store",
    ),
    ({"shaping": ShapingSettings("pbrs", occupancy=-1.0), "potential": "true"}, ConfigError, "occupancy=-1"),
    ({"shaping": ShapingSettings("pbrs", ensemble="best"), "potential": "true"}, ConfigError, "ensemble='best'"),
    ({"shaping": ShapingSettings("pbrs", ensemble="worst"), "potential": "true"}, ConfigError, "of an ensemble"),
    ({"store": None, "learner": IqlSettings()}, ConfigError, "give store"),
    ({"learner": IqlSettings(reward="vlm")}, ConfigError, "learner.reward='vlm'"),
    ({"learner": IqlSettings(reward="preferences")}, ConfigError, "asks a reward model"),
    ({"policy": "/nowhere", "learner": Sb3PpoSettings()}, ConfigError, "learner=sb3_ppo does not take"),
    ({"learning": LearningSettings(action_repeat=0)}, ConfigError, "action_repeat=0"),
    ({"learning": LearningSettings(demonstration_fraction=1.0)}, ConfigError, "demonstration_fraction"),
    ({"learning": LearningSettings(success_fraction=1.5)}, ConfigError, "success_fraction"),
    ({"learning": LearningSettings(self_imitation_growth=1.0)}, ConfigError, "self_imitation_growth=1"),
    ({"learning": LearningSettings(ignored_states=["wind"])}, ConfigError, "no 'wind' in the environment's state"),
    (
        {"learning": LearningSettings(ignored_states=["wind"]), "learner": Sb3SacSettings()},
        ConfigError,
        "no effect on learner=sb3_sac",
    ),
]


@pytest.mark.parametrize(("changes", "kind", "message"), WRONG, ids=[message for _, _, message in WRONG])
def test_bad_input_is_reported_in_one_line(
    tmp_path: Path, store: Path, changes: dict[str, Any], kind: type[RoboError], message: str
) -> None:
    given = {"shaping": ShapingSettings("sparse"), **changes}
    with pytest.raises(kind, match=message):
        train_rl.run(settings(**{"out": tmp_path / "out", "store": store, **given}))
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_store_of_another_environment_is_refused(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wide(LineEnv):
        def __init__(self, max_steps: int = 40) -> None:
            super().__init__(max_steps)
            box = self.observation_space.spaces["observation.state"]
            wide = type(box)(-2, 2, (3,), np.float32)
            self.observation_space.spaces["observation.state"] = wide

    monkeypatch.setattr(experiment, "make_env", lambda name, max_steps=None: Wide())
    with pytest.raises(StoreError, match=r"has 2 values in .* and 3 in this environment"):
        train_rl.run(settings(tmp_path, store, shaping=ShapingSettings("sparse")))


@pytest.mark.parametrize(("potential", "cut"), [("true", True), ("none", False)])
def test_only_episodes_learned_from_with_a_potential_are_truncated_early(
    tmp_path: Path, store: Path, potential: str, cut: bool
) -> None:
    loop = replace(LOOP, early_termination_patience=2)
    shaping = ShapingSettings("pbrs" if potential == "true" else "sparse")
    run = RunSettings("line", str(store), None, None, potential, None, shaping, loop, LEARNER, 0, None)
    made = Experiment(run, tmp_path)
    for envs, expected in (
        (made.training_envs(), cut),
        (made.training_envs(scored=False), False),
        (made.evaluation_envs(0), False),
    ):
        envs.reset()
        still = np.zeros((envs.num_envs, 1), np.float32)
        assert [bool(envs.step(still).done.all()) for _ in range(2)] == [False, expected]


@pytest.mark.parametrize("learner", [LEARNER, IqlSettings(width=32)], ids=["sac", "iql"])
@pytest.mark.parametrize("ignored", [["weather"], []], ids=["ignored", "read"])
def test_an_ignored_state_changes_no_action_of_learner_prior_or_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, learner: LearnerSettings, ignored: list[str]
) -> None:
    monkeypatch.setattr(experiment, "make_env", lambda name, max_steps=None: WeatheredLine(max_steps or 40))
    store = line_store(tmp_path / "demos.zarr", env=WeatheredLine(200))
    loop = replace(LOOP, ignored_states=ignored)
    run = settings(tmp_path / "out", Path(store.path), learning=loop, learner=learner, potential="true", steps=100)
    train_rl.run(run)
    policy = load_policy(tmp_path / "out")
    rng = np.random.default_rng(0)
    calm = {"observation.state": rng.uniform(-1, 1, (20, 2)).astype(np.float32)}
    calm["observation.environment_state"] = np.stack([np.zeros(20), rng.uniform(-1, 1, 20)], axis=1).astype(np.float32)
    stormy = {key: value.copy() for key, value in calm.items()}
    stormy["observation.environment_state"][:, 0] = rng.uniform(-9, 9, 20)
    moved = {key: value.copy() for key, value in calm.items()}
    moved["observation.environment_state"][:, 1] += 1
    acted = [policy.act(seen) for seen in (calm, stormy, moved)]
    assert bool(np.abs(acted[1] - acted[0]).max() < 1e-6) is bool(ignored)
    assert np.abs(acted[2] - acted[0]).max() > 1e-6


def test_statistics_are_restored_from_a_checkpoint_and_hide_what_they_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "make_env", lambda name, max_steps=None: WeatheredLine(max_steps or 40))
    store = line_store(tmp_path / "demos.zarr", env=WeatheredLine(200))
    loop = replace(LOOP, ignored_states=["weather"])
    shaping = ShapingSettings("pbrs")
    run = RunSettings("line", str(store.path), None, None, "true", None, shaping, loop, LEARNER, 0, None)
    first = Experiment(run, tmp_path / "run").runner
    before = first.policy.state()["scale"]
    first.run(120, lambda *_: None)
    second = Experiment(run, tmp_path / "run").runner
    assert second.load()
    stored, again = first.policy.state(), second.policy.state()
    for name in ("mean", "scale"):
        np.testing.assert_array_equal(stored[name], again[name])
    assert (stored["scale"] != before).any()
    assert torch.isinf(stored["scale"]).tolist() == [False, False, True, False, False]
    assert second.state.statistics == first.state.statistics
