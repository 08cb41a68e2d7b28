"""The env: spaces, determinism, limits, images, and what the user is told when something is wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from robo_core.errors import ConfigError, MissingPartError
from robo_policies import make_env
from robo_policies import rendering as rendering_module
from robo_policies.envs.tidy_drawer.env import CUBE_X, CUBE_Y, ENVIRONMENT_STATE_NAMES, START_OPENING, TidyDrawerEnv
from robo_policies.envs.tidy_drawer.scene import DRAWER_TRAVEL, scene_xml
from robo_policies.rendering import GL_PACKAGES, probe_gl


@pytest.fixture
def env():
    env = make_env("tidy_drawer")
    yield env
    env.close()


def _actions(count: int, seed: int = 0) -> np.ndarray:
    env = make_env("tidy_drawer")
    env.action_space.seed(seed)
    return np.stack([env.action_space.sample() for _ in range(count)])


@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space:UserWarning")
@pytest.mark.filterwarnings("ignore:.*A Box observation space m.* value is -?infinity:UserWarning")  # it is unbounded
@pytest.mark.filterwarnings("ignore:.*Not able to test alternative render modes:UserWarning")
def test_gymnasium_checker_accepts_the_environment():
    check_env(make_env("tidy_drawer", image_size=16, cameras=("front",)))


def test_same_seed_and_actions_give_a_bit_identical_episode():
    runs = []
    for _ in range(2):
        env = make_env("tidy_drawer")
        env.reset(seed=1)  # an episode before must leave no trace
        env.step(env.action_space.low)
        observation, _ = env.reset(seed=5)
        trace = [observation["observation.environment_state"]]
        for action in _actions(40):
            observation, reward, _, _, info = env.step(action)
            trace += [observation["observation.state"], observation["observation.environment_state"]]
            trace += [np.array([reward, info["progress"], info["stage"]])]
        runs.append(np.concatenate(trace))
    assert np.array_equal(*runs)


def test_the_arm_moves_alike_on_every_mujoco(env: TidyDrawerEnv):
    """Positions of MuJoCo 3.3.0 in mid-motion, servos at their limit of torque. Seen on 3.3.0, 3.12, 3.17 and 4.0."""
    env.reset(seed=0)
    env.step(np.array([0.4, 0.3, -0.2, 0.1, 1.2, 0.3, 1.0], np.float32))
    found = [0.213141, 0.064212, -0.169233, 0.030931, 1.525033, 0.215229, 0.860704]
    assert env.joint_positions() == pytest.approx(found, abs=5e-6)
    # What those versions read in different ways.
    assert "dampratio" not in scene_xml()
    assert not env.model.actuator_biasprm[:, 2].any()


def test_apply_moves_as_a_step_does_and_leaves_limits_to_its_caller():
    stepped, applied = make_env("tidy_drawer"), make_env("tidy_drawer")
    observation, _ = stepped.reset(seed=2)
    applied.reset(seed=2)
    near = observation["observation.state"] + 0.01
    near[6] = 0.5
    for _ in range(3):
        stepped.step(near)
        for _ in range(10):
            applied.apply(near.astype(np.float64), physics_steps=1)
    first, second = stepped.observe(), applied.observe()
    assert np.array_equal(first[0]["observation.environment_state"], second[0]["observation.environment_state"])
    assert first[1] == second[1]
    assert applied.joint_positions() == pytest.approx(second[0]["observation.state"], abs=1e-6)
    assert applied.joint_velocities().shape == (7,)
    far = near + 1.0
    stepped.step(far)
    applied.apply(far.astype(np.float64))
    assert np.ptp(applied.joint_positions() - stepped.joint_positions()) > 0.01, "a step limits the servos' speed"


def test_a_copy_shows_the_same_scene():
    env, view = make_env("tidy_drawer", image_size=32), make_env("tidy_drawer", image_size=32)
    env.reset(seed=4)
    view.reset(seed=5)
    view.copy_state(env)
    assert np.array_equal(view.render(), env.render())
    env.close()
    view.close()


def test_images_do_not_change_the_physics():
    plain, seeing = make_env("tidy_drawer"), make_env("tidy_drawer", image_size=16, cameras=("front", "wrist"))
    plain.reset(seed=2)
    seeing.reset(seed=2)
    for action in _actions(10):
        first, second = plain.step(action)[0], seeing.step(action)[0]
        key = "observation.environment_state"
        assert np.array_equal(first[key], second[key])
    seeing.close()


def test_starts_differ_and_stay_in_their_ranges(env: TidyDrawerEnv):
    starts = np.stack([env.reset(seed=seed)[0]["observation.environment_state"] for seed in range(50)])
    named = dict(zip(ENVIRONMENT_STATE_NAMES, starts.T, strict=True))
    assert len(np.unique(starts[:, 0])) == 50
    for name, (low, high) in {"cube_x": CUBE_X, "cube_y": CUBE_Y, "drawer_opening": (0, START_OPENING)}.items():
        assert named[name].min() >= low
        assert named[name].max() <= high
        assert np.ptp(named[name]) > 0.7 * (high - low)


def test_relative_positions_agree_with_absolute_ones(env: TidyDrawerEnv):
    observation, _ = env.reset(seed=3)
    named = dict(zip(ENVIRONMENT_STATE_NAMES, observation["observation.environment_state"], strict=True))
    for axis in "xyz":
        assert named[f"cube_from_tip_{axis}"] == pytest.approx(named[f"cube_{axis}"] - named[f"tip_{axis}"], abs=1e-6)


def test_quarter_turns_of_the_cube_look_the_same(env: TidyDrawerEnv):
    def heading(yaw: float) -> np.ndarray:
        env.reset(seed=0)
        env.data.qpos[12:16] = np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)
        return env.observe()[0]["observation.environment_state"][3:5]

    assert heading(0.3) == pytest.approx(heading(0.3 + np.pi / 2), abs=1e-5)
    assert not np.allclose(heading(0.3), heading(0.6))


def test_episode_is_truncated_at_the_limit_and_not_before():
    env = make_env("tidy_drawer", max_steps=3)
    observation, _ = env.reset(seed=0)
    ends = [env.step(observation["observation.state"])[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_joint_targets_are_clipped_and_speed_is_limited(env: TidyDrawerEnv):
    first, _ = env.reset(seed=0)
    before = first["observation.state"][0]
    after = env.step(np.full(7, 100.0, np.float32))[0]["observation.state"]
    assert 0 < after[0] - before < 0.25
    for _ in range(60):
        after = env.step(np.full(7, 100.0, np.float32))[0]["observation.state"]
    assert after[0] <= env.action_space.high[0] + 0.02
    assert after[6] <= 1.02


@pytest.mark.parametrize("action", [np.zeros(6), np.full(7, np.nan), np.array([0, 0, 0, 0, 0, 0, np.inf])])
def test_bad_action_is_refused_and_named(env: TidyDrawerEnv, action: np.ndarray):
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="7 finite numbers"):
        env.step(action)


def test_resting_arm_stays_where_it_is(env: TidyDrawerEnv):
    observation, _ = env.reset(seed=0)
    start = observation["observation.state"]
    for _ in range(40):
        observation = env.step(start)[0]
    assert observation["observation.state"] == pytest.approx(start, abs=0.01)
    assert 0 <= observation["observation.environment_state"][5] <= DRAWER_TRAVEL


@pytest.mark.parametrize("preset", ["fast", "default"])
def test_cameras_show_the_scene_and_follow_the_state(preset: str):
    env = make_env("tidy_drawer", render=preset, image_size=64)
    env.reset(seed=0)
    shut = env.render_cameras()
    assert set(shut) == {"observation.images.front", "observation.images.wrist"}
    for image in shut.values():
        assert image.shape == (64, 64, 3)
        assert image.dtype == np.uint8
        assert image.std() > 10
    red = (shut["observation.images.front"][..., 0] > 120) & (shut["observation.images.front"][..., 1] < 60)
    assert red.sum() >= 4, "the cube is not to be seen"
    env.data.joint("drawer").qpos = 0.1
    env.step(np.array([*env.data.qpos[:6], 0.5], np.float32))
    opened = env.render()
    changed = np.abs(opened.astype(int) - shut["observation.images.front"]).max(-1) > 40
    assert changed.mean() > 0.01, "an open drawer looks like a shut one"
    env.close()


def test_images_returned_earlier_are_not_overwritten():
    env = make_env("tidy_drawer", image_size=16, cameras=("front",))
    first = env.reset(seed=0)[0]["observation.images.front"]
    kept = first.copy()
    env.reset(seed=1)
    assert np.array_equal(first, kept)
    env.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "tidy_drawr"}, "not an environment"),
        ({"render": "pretty"}, "no render preset"),
        ({"cameras": ("top",)}, "no camera 'top'"),
        ({"cameras": ("front", "front")}, "twice"),
        ({"image_size": 4}, "out of range"),
        ({"max_steps": 0}, "at least 1"),
    ],
)
def test_bad_settings_are_refused_with_one_clear_line(settings: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        make_env(**{"name": "tidy_drawer", **settings})


@pytest.mark.parametrize("before", ["", "import weakref\nweakref.finalize(weakref.WeakSet(), int)\n"])
def test_open_renderer_is_quiet_when_python_ends(before: str):
    """Also where another finalizer was registered before MuJoCo's farewell to the driver."""
    script = (
        f"{before}from robo_policies import make_env\n"
        "env = make_env('tidy_drawer', image_size=16, cameras=('front',))\n"
        "env.reset(seed=0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_probe_names_the_backend_that_works():
    backend, fix = probe_gl()
    assert backend in ("egl", "osmesa", "glfw")
    assert fix == ""


@pytest.mark.parametrize(("osmesa", "advice"), [(None, GL_PACKAGES), ("libOSMesa.so.8", "MUJOCO_GL=osmesa")])
def test_missing_gl_backend_names_what_to_do(monkeypatch: pytest.MonkeyPatch, osmesa: str | None, advice: str):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr("ctypes.util.find_library", lambda name: osmesa)

    def no_context(*_: object) -> None:
        raise RuntimeError("no EGL display")

    monkeypatch.setattr(rendering_module.import_mujoco(), "Renderer", no_context)
    backend, fix = probe_gl()
    assert backend is None
    assert advice in fix
    env = make_env("tidy_drawer")
    env.reset(seed=0)  # physics needs no GL
    with pytest.raises(MissingPartError, match="no EGL display"):
        env.render()


def test_missing_mujoco_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(MissingPartError, match=r"robo-rm\[sim\]"):
        make_env("tidy_drawer")
    assert probe_gl()[0] is None


@pytest.mark.parametrize(
    ("libraries", "environment", "chosen"),
    [
        ({"EGL", "OSMesa"}, {}, "egl"),
        ({"OSMesa"}, {}, "osmesa"),
        (set(), {}, None),
        ({"EGL"}, {"MUJOCO_GL": "osmesa"}, "osmesa"),
        ({"EGL"}, {"DISPLAY": ":0"}, None),
    ],
)
def test_headless_backend_is_chosen_only_where_nobody_else_did(
    monkeypatch: pytest.MonkeyPatch, libraries: set[str], environment: dict[str, str], chosen: str | None
):
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.setenv(name, "")  # first, so that what is chosen here is undone afterwards
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delitem(sys.modules, "mujoco")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.util.find_library", lambda name: name if name in libraries else None)
    rendering_module._choose_backend()
    assert os.environ.get("MUJOCO_GL") == chosen
