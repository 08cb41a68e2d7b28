"""Cloning what people really have: small units, large offsets, constant dimensions, no state, depth beside colour."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from robo_core.errors import ConfigError, StoreError
from robo_datasets import DemoStore
from robo_policies import load_policy, train_policy
from robo_policies.cloning.settings import ActSettings, CloningSettings, DiffusionSettings, WeightSettings
from robo_policies.cloning.windows import (
    Span,
    Windows,
    affine,
    constant_dimensions,
    for_inference,
    load_demonstrations,
    normalisation,
)
from robo_rm.training.budget import Budget

SMALL = ActSettings(
    chunk_size=4, execution_horizon=2, dim_model=32, n_heads=2, dim_feedforward=64, cameras=[], use_vae=False
)
DIFFUSION = DiffusionSettings(
    chunk_size=4, execution_horizon=2, down_dims=[16, 32], diffusion_step_embed_dim=16, num_inference_steps=5
)
FAST = CloningSettings(batch_size=32, learning_rate=3e-3, ema_decay=0.9)


def make(path, actions, states=None, tasks=("go",), success=True, dtype="float32", cameras=()):
    """Episodes of (T, A) actions and (T, S) states; without states the pictures alone tell which way to go."""
    features = {"action": {"shape": (actions[0].shape[1],), "dtype": dtype}}
    if states is not None:
        features["observation.state"] = {"shape": (states[0].shape[1],), "dtype": dtype}
        features["observation.environment_state"] = {"shape": (1,), "dtype": "float32"}
    for name, shape, kind in cameras:
        features[f"observation.images.{name}"] = {"shape": shape, "dtype": kind}
    store = DemoStore.create(path, features, fps=100)
    for number, action in enumerate(actions):
        with store.writer(task=tasks[number % len(tasks)], success=success) as writer:
            for t, row in enumerate(action):
                frame = {"action": row.astype(dtype)}
                if states is not None:
                    frame["observation.state"] = states[number][t].astype(dtype)
                    frame["observation.environment_state"] = np.zeros(1, np.float32)
                for name, shape, kind in cameras:
                    frame[f"observation.images.{name}"] = np.full(shape, 40 + 150 * (number % 2), kind)
                writer.add(frame, timestamp=t / 100)
    return store


def signs(count=8, frames=30):
    """The sign of an episode's motion, and a state that tells it."""
    states = [np.stack([np.linspace(0, 1, frames), np.full(frames, 1 - 2 * (n % 2))], 1) for n in range(count)]
    return states, [state[:, 1:] for state in states]


@pytest.mark.parametrize("policy", [SMALL, DIFFUSION], ids=["act", "diffusion"])
@pytest.mark.parametrize("unit", [1.0, 5e-5, 1e-9])
def test_a_policy_is_the_same_in_any_unit(tmp_path, policy, unit):
    states, way = signs()
    store = make(tmp_path / "s.zarr", [unit * one for one in way], states)
    steps = 150 if policy is SMALL else 300
    trained = train_policy(store, tmp_path / "policy", Budget(steps), policy, training=FAST, holdout=2)
    for sign in (-1.0, 1.0):
        seen = {"observation.state": np.array([0.3, sign]), "observation.environment_state": np.zeros(1)}
        found = trained.policy.act({k: v.astype(np.float32) for k, v in seen.items()})[0, 0] / unit
        assert found == pytest.approx(sign, abs=0.4)
    # The error stands beside in the units of the actions; as many go either way, give or take what is held out.
    ratio = trained.metrics["holdout_action_l1"] / trained.metrics["holdout_action_l1_normalised"]
    assert ratio == pytest.approx(unit, rel=0.3)


@pytest.mark.parametrize("policy", [SMALL, DIFFUSION], ids=["act", "diffusion"])
def test_a_constant_action_comes_out_as_exactly_its_value(tmp_path, policy, capsys):
    states, way = signs(6)
    actions = [np.concatenate([one, np.full_like(one, 0.1 + 0.2), np.zeros_like(one)], 1) for one in way]
    store = make(tmp_path / "s.zarr", actions, states)
    trained = train_policy(store, tmp_path / "policy", Budget(3), policy, training=FAST)
    seen = {
        "observation.state": np.array([0.3, 1], np.float32),
        "observation.environment_state": np.zeros(1, np.float32),
    }
    chunk = load_policy(tmp_path / "policy").act(seen)
    assert (chunk[:, 1] == np.float32(0.1 + 0.2)).all()
    assert (np.abs(chunk[:, 2]) < 1e-12).all()
    assert trained.policy.card["constant"]["action"] == [1, 2]
    assert "never changes; the policy always gives the one value: action[1], action[2]" in capsys.readouterr().out


def test_a_dimension_that_moves_in_one_frame_is_not_constant(tmp_path):
    states, way = signs(4)
    actions = [np.concatenate([one, np.zeros_like(one)], 1) for one in way]
    actions[2][7, 1] = 1e-4
    demonstrations = load_demonstrations(make(tmp_path / "s.zarr", actions, states))
    weights = np.ones(demonstrations.frames, np.float32)
    assert constant_dimensions(demonstrations, weights)["action"].tolist() == [False, False]
    statistics = normalisation(demonstrations, weights)
    batch = Windows(demonstrations, weights, Span(1), statistics).gather(np.arange(demonstrations.frames))
    assert float(batch["action"][..., 1].std()) == pytest.approx(1, rel=0.01)
    # Where its episode has no weight, it is.
    weights[demonstrations.starts[2] : demonstrations.starts[3]] = 0
    assert constant_dimensions(demonstrations, weights)["action"].tolist() == [False, True]


def test_motion_that_float32_cannot_hold_is_said(tmp_path, capsys):
    states, way = signs(4)
    actions = [1e6 + 0.01 * one for one in way]
    store = make(tmp_path / "s.zarr", actions, states, dtype="float64")
    train_policy(store, tmp_path / "policy", Budget(2), SMALL, training=FAST)
    assert "warning: action[0] moves by less than float32" in capsys.readouterr().out


@pytest.mark.parametrize("bounded", [False, True])
def test_large_offsets_are_normalised_and_given_back(tmp_path, bounded):
    states, way = signs(4)
    store = make(tmp_path / "s.zarr", [1e6 + 3 * one for one in way], states, dtype="float64")
    demonstrations = load_demonstrations(store)
    weights = np.ones(demonstrations.frames, np.float32)
    statistics = for_inference(normalisation(demonstrations, weights), constant_dimensions(demonstrations, weights))
    offset, scale = affine(statistics["action"], bounded)
    values = demonstrations.arrays["action"]
    normal = (values - offset) / scale
    assert np.abs(normal).max() == pytest.approx(1, rel=0.05)
    np.testing.assert_allclose(normal * scale + offset, values, atol=0.1)


def test_whole_numbers_are_actions_too(tmp_path):
    states, way = signs(4)
    store = make(tmp_path / "s.zarr", [40 * one for one in way], states, dtype="int32")
    trained = train_policy(store, tmp_path / "policy", Budget(5), SMALL, training=FAST, holdout=1)
    assert trained.metrics["holdout_action_l1"] > 0


def test_a_policy_learns_from_cameras_alone_and_depth_is_left_out(tmp_path, capsys):
    _, way = signs(6, 12)
    cameras = [("front", (64, 64, 3), "uint8"), ("wrist", (48, 80, 3), "uint8"), ("depth", (64, 64, 1), "uint16")]
    store = make(tmp_path / "s.zarr", way, cameras=cameras)
    looks = dataclasses.replace(SMALL, cameras=None, dim_model=16, use_vae=True, latent_dim=4)
    trained = train_policy(store, tmp_path / "policy", Budget(25), looks, training=FAST, holdout=2)
    assert "camera depth is left out: uint16 frames of shape (64, 64, 1) are no RGB pictures" in capsys.readouterr().out
    assert set(trained.policy.cameras) == {"observation.images.front", "observation.images.wrist"}
    assert "observation.state" not in trained.policy.dims
    pictures = {f"observation.images.{n}": np.full(s, 40, np.uint8) for n, s, _ in cameras[:2]}
    assert load_policy(tmp_path / "policy").act(pictures).shape == (4, 1)
    assert len(trained.held_out) == 10
    with pytest.raises(StoreError, match="depth has uint16 frames"):
        train_policy(store, tmp_path / "other", Budget(1), dataclasses.replace(looks, cameras=["depth"]))
    with pytest.raises(ConfigError, match=r"no observation.state, and LeRobot's diffusion network always reads one"):
        train_policy(store, tmp_path / "other", Budget(1), DIFFUSION)
    assert not (tmp_path / "other").exists()


def test_what_matters_is_said_before_training(tmp_path, capsys):
    states, way = signs(6)
    store = make(tmp_path / "s.zarr", way, states, tasks=("pick up", "put down", ""), success=None)
    store.set_success(store.uuids[0], False)
    store.set_success(store.uuids[1], True)
    train_policy(store, tmp_path / "policy", Budget(1), SMALL, training=FAST)
    text = capsys.readouterr().out
    assert "warning: the episodes have 2 instructions ('pick up', 'put down') and this policy reads none" in text
    assert "warning: 1 failed episodes are cloned like the others" in text
    assert "4 of 6 episodes have no outcome (success) and are cloned like successes" in text
    train_policy(store, tmp_path / "good", Budget(1), SMALL, WeightSettings("success_only"), FAST)
    text = capsys.readouterr().out
    assert "episodes have no outcome (success) and are left out by weights=success_only" in text
    with pytest.raises(ConfigError, match="holdout=5 leaves 1 of 6 episodes"):
        train_policy(store, tmp_path / "few", Budget(1), SMALL, training=FAST, holdout=5)


def test_a_policy_is_whole_before_it_is_evaluated(tmp_path, monkeypatch):
    from robo_policies.cloning import training as module

    states, way = signs(6)
    store = make(tmp_path / "s.zarr", way, states)
    errors = module.held_out_errors

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "held_out_errors", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_policy(store, tmp_path / "policy", Budget(4), SMALL, training=FAST, holdout=2)
    assert load_policy(tmp_path / "policy").card["metrics"]["steps"] == 4
    weights = (tmp_path / "policy" / "model.safetensors").read_bytes()
    monkeypatch.setattr(module, "held_out_errors", errors)
    trained = train_policy(store, tmp_path / "policy", Budget(4), SMALL, training=FAST, holdout=2)
    assert "holdout_action_l1" in trained.metrics
    assert (tmp_path / "policy" / "model.safetensors").read_bytes() == weights


def test_a_run_that_its_cap_ended_says_so_and_goes_on(tmp_path, capsys):
    states, way = signs(6)
    store = make(tmp_path / "s.zarr", way, states)
    cut = train_policy(store, tmp_path / "policy", Budget(6, 1e-6), SMALL, training=FAST)
    assert "warning: minutes=1e-06 ended the training at step 1 of 6" in capsys.readouterr().out
    card = json.loads((tmp_path / "policy" / "robo_policy.json").read_text())
    assert (card["metrics"]["ended_by"], cut.metrics["steps"], cut.metrics["planned_steps"]) == ("minutes", 1, 6)
    whole = train_policy(store, tmp_path / "policy", Budget(6), SMALL, training=FAST)
    assert (whole.metrics["ended_by"], whole.metrics["steps"], whole.resumed) == ("steps", 6, False)
    straight = train_policy(store, tmp_path / "straight", Budget(6), SMALL, training=FAST)
    np.testing.assert_array_equal(whole.losses, straight.losses)
