from __future__ import annotations

import sys

import numpy as np
import pytest

from robo_core.errors import ConfigError
from robo_policies import make_env

needs_aloha = pytest.mark.skipif(
    sys.version_info >= (3, 13),
    reason="gym-aloha is not installed on Python 3.13: its dm_control needs labmaze, which has no wheel for it",
)
ALOHA = "gym/gym_aloha/AlohaTransferCube-v0"


@pytest.fixture(scope="module")
def fetch():
    return make_env("gym/FetchReach-v4")


def test_a_goal_environment_gives_the_keys_of_a_store_and_progress_towards_its_goal(fetch):
    observation, info = fetch.reset(seed=0)
    assert observation["observation.state"].shape == (10,)
    assert observation["observation.environment_state"].shape == (6,)
    assert (info["progress"], info["stage_name"], fetch.fps, fetch.max_steps) == (0.0, "do the task", 25.0, 50)
    success = False
    for _ in range(50):
        way = observation["observation.environment_state"][3:]
        observation, reward, terminated, truncated, info = fetch.step(np.append(np.clip(8 * way, -1, 1), 0.0))
        success = success or info["success"]
        if terminated or truncated:
            break
    assert success
    assert terminated
    assert (reward, info["progress"]) == (1.0, 1.0)


@pytest.mark.parametrize("name", ["gym/FetchReach-v4", pytest.param(ALOHA, marks=needs_aloha)])
def test_a_seed_fixes_the_episode(name):
    env = make_env(name)
    action = np.zeros(env.action_space.shape, np.float32)
    seen = []
    for seed in (7, 8, 7):
        first, _ = env.reset(seed=seed)
        then = env.step(action)[0]
        seen.append(np.concatenate([*first.values(), *then.values()]))
    assert np.array_equal(seen[0], seen[2])
    assert not np.array_equal(seen[0], seen[1])
    env.close()


@needs_aloha
def test_aloha_has_its_stages_and_renders_only_when_asked():
    env = make_env("gym/gym_aloha/AlohaInsertion-v0", image_size=32, cameras=("front",))
    observation, info = env.reset(seed=0)
    assert observation["observation.state"].shape == env.action_space.shape == (14,)
    assert observation["observation.environment_state"].shape == (14,)
    assert observation["observation.images.front"].std() > 5
    assert (len(env.stages), info["stage"], info["progress"], info["success"]) == (4, 0, 0.0, False)
    env.close()


def test_an_environment_without_cameras_is_seen_by_a_free_one():
    env = make_env("gym/PointMaze_UMaze-v3", image_size=32)
    env.reset(seed=0)
    assert env.render().std() > 5
    env.close()


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("gym/FetchReech-v4", {}, "FetchReach"),
        ("gym/CartPole-v1", {}, "no continuous action"),
        ("gym/Pendulum-v1", {}, "does not run in MuJoCo"),
        ("gym/FetchReach-v4", {"cameras": ("side",)}, "no camera 'side'"),
        ("gym/FetchReach-v4", {"action_repeat": 99}, "action_repeat=99"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(name, settings, words):
    with pytest.raises(ConfigError, match=words) as told:
        make_env(name, **settings)
    assert "\n" not in str(told.value)


def test_actions_that_cannot_be_are_refused(fetch):
    fetch.reset(seed=0)
    with pytest.raises(ConfigError, match="4 finite numbers"):
        fetch.step(np.full(4, np.nan))


def test_recording_a_world_without_an_operator_is_refused_before_anything_is_written(run_command, tmp_path):
    store = tmp_path / "demos.zarr"
    code, _, errors = run_command("record", "env=gym/FetchReach-v4", f"store={store}", "episodes=1")
    assert (code, errors.count("\n")) == (2, 1)
    assert "has no scripted operator" in errors
    assert not store.exists()


@pytest.mark.parametrize(
    ("name", "cameras"), [("gym/FetchReach-v4", ()), pytest.param(ALOHA, ("top",), marks=needs_aloha)]
)
def test_demonstrations_of_ones_own_are_recorded_learned_from_and_evaluated(name, cameras, tmp_path):
    from robo_datasets import DemoStore
    from robo_policies import evaluate, train_policy
    from robo_policies.cloning.settings import ActSettings, CloningSettings, WeightSettings
    from robo_rm.training.budget import Budget

    settings = {"image_size": 32, "max_steps": 6}
    env = make_env(name, cameras=cameras, **settings)
    observation, info = env.reset(seed=0)
    features = {key: {"shape": value.shape, "dtype": str(value.dtype)} for key, value in observation.items()}
    features["action"] = {"shape": env.action_space.shape, "dtype": "float32"}
    store = DemoStore.create(tmp_path / "demos.zarr", features=features, fps=env.fps, stages=list(env.stages))
    env.action_space.seed(0)
    for seed in range(2):
        observation, info = env.reset(seed=seed)
        with store.writer(task="try", success=False) as episode:
            for _ in range(5):
                action = 0.1 * env.action_space.sample()  # wild ones may break the simulation
                episode.add({**observation, "action": action}, stage=info["stage"])
                observation, _, _, _, info = env.step(action)
    env.close()
    policy = train_policy(
        store, tmp_path / "policy", Budget(2),
        ActSettings(chunk_size=4, execution_horizon=4, dim_model=16, n_heads=2, cameras=list(cameras)),
        WeightSettings(), CloningSettings(batch_size=4),
    ).policy  # fmt: skip
    assert list(policy.cameras) == [f"observation.images.{camera}" for camera in cameras]
    result = evaluate(policy, lambda: make_env(name, **settings), episodes=1)
    assert result.rollouts[0].steps == 6
    assert result.stages == tuple(env.stages)


@needs_aloha
def test_an_action_that_breaks_the_simulation_ends_the_episode_as_a_failure(monkeypatch):
    from dm_control.rl.control import PhysicsError

    def breaks(action):
        raise PhysicsError("Physics state is invalid")

    env = make_env(ALOHA)
    before, _ = env.reset(seed=0)
    monkeypatch.setattr(env._inner._env, "step", breaks)
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    env.close()
    assert (reward, terminated, truncated, info["success"]) == (0.0, True, False, False)
    assert all((observation[key] == before[key]).all() for key in before)
