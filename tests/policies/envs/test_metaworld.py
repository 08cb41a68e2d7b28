from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from robo_core.errors import ConfigError, MissingPartError
from robo_policies.envs import demonstrate, make_env
from robo_policies.envs.demonstrations import QUALITIES
from robo_policies.envs.metaworld.tasks import GRASPING, PUSHING, REACHING, TASKS


def run(env, quality, seed):
    """(progress of every frame, stage of every frame, the last info) of one demonstration."""
    _, info = env.reset(seed=seed)
    infos = [info]
    for action in demonstrate(env, quality, np.random.default_rng([seed, 1])):
        _, _, terminated, truncated, info = env.step(action)
        infos.append(info)
        if terminated or truncated:
            break
    return np.array([i["progress"] for i in infos]), [i["stage"] for i in infos], infos[-1]


@pytest.fixture(scope="module")
def drawer():
    return make_env("metaworld/drawer-open-v3", max_steps=900)


@pytest.fixture(scope="module")
def picking():
    return make_env("metaworld/pick-place-v3", max_steps=900)


@pytest.mark.filterwarnings("ignore::UserWarning")  # the checker finds unbounded observations worth a warning
def test_a_meta_world_task_keeps_gymnasiums_contract():
    check_env(make_env("metaworld/reach-v3", image_size=16, cameras=("front",)))


def test_there_are_facts_for_each_of_meta_worlds_tasks_and_no_others():
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    assert {f"{name}-v3" for name in TASKS} == set(ALL_V3_ENVIRONMENTS)
    assert {facts.stages for facts in TASKS.values()} == {GRASPING, PUSHING, REACHING}


def test_the_same_seed_and_actions_give_the_same_episode_bit_for_bit_whatever_came_before(drawer):
    fresh = make_env("metaworld/drawer-open-v3", max_steps=900)
    run(drawer, "wandering", 5)
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 4)).astype(np.float32)
    for seed in (3, 4):
        pairs = [(drawer.reset(seed=seed)[0], fresh.reset(seed=seed)[0])]
        pairs += [(drawer.step(action)[0], fresh.step(action)[0]) for action in actions]
        for one, other in pairs:
            assert all(np.array_equal(one[key], other[key]) for key in one)
    starts = [drawer.reset(seed=seed)[0]["observation.environment_state"] for seed in range(3)]
    assert not np.array_equal(starts[0], starts[1])


@pytest.mark.parametrize("env", ["drawer", "picking"])
def test_clean_demonstrations_succeed_through_all_stages_with_rising_progress(env, request):
    env = request.getfixturevalue(env)
    for seed in range(3):
        progress, stages, info = run(env, "clean", seed)
        assert info["success"]
        assert info["progress"] == 1.0
        assert progress[0] < 0.05
        assert sorted(set(stages)) == list(range(len(env.stages)))
        assert np.max(np.maximum.accumulate(progress) - progress) < 0.2
        assert progress[-2] > 0.8, "success comes as the end of a way, not as a leap"


def test_qualities_differ_as_their_names_say(picking):
    lengths, falls, successes = {}, {}, {}
    for quality in QUALITIES:
        runs = [run(picking, quality, seed) for seed in range(2)]
        lengths[quality] = np.mean([len(progress) for progress, _, _ in runs])
        falls[quality] = np.mean([np.max(np.maximum.accumulate(p) - p) for p, _, _ in runs])
        successes[quality] = sum(info["success"] for _, _, info in runs)
    assert lengths["slow"] > 2 * lengths["clean"]
    assert falls["drop_and_regrasp"] > 0.2 > falls["clean"]
    assert successes["clean"] == successes["drop_and_regrasp"] == 2
    assert successes["stops_partway"] == successes["wrong_order"] == 0


def test_a_dropped_object_takes_stage_and_progress_back(picking):
    progress, stages, _ = run(picking, "drop_and_regrasp", 0)
    carried = stages.index(2)
    back = next(i for i in range(carried, len(stages)) if stages[i] < 2)
    assert progress[back] < progress[carried:back].max()


def test_actions_last_as_long_as_asked_for():
    slow, fast = (make_env("metaworld/reach-v3", action_repeat=repeat) for repeat in (4, 1))
    assert (slow.fps, fast.fps, slow.max_steps, fast.max_steps) == (20, 80, 125, 500)
    for env in (slow, fast):
        env.reset(seed=0)
    action = np.array([0.3, -0.2, 0.1, 1.0], np.float32)
    after = slow.step(action)[0]
    for _ in range(4):
        step_by_step = fast.step(action)[0]
    assert np.array_equal(after["observation.state"], step_by_step["observation.state"])


def test_episodes_end_at_their_limit():
    env = make_env("metaworld/drawer-open-v3", max_steps=3)
    env.reset(seed=0)
    ends = [env.step(np.zeros(4))[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_pictures_stand_upright():
    env = make_env("metaworld/drawer-open-v3", image_size=64)
    heights = []
    for way in (1.0, -1.0):
        env.reset(seed=0)
        for _ in range(15):
            env.step(np.array([0.0, 0.0, way, -1.0]))
        pictures = env.render_cameras(("front", "wrist", "topview"))
        assert all(picture.shape == (64, 64, 3) and picture.dtype == np.uint8 for picture in pictures.values())
        front = pictures["observation.images.front"].astype(int)
        rows, _ = np.nonzero((front[..., 0] > front[..., 1] + 60) & (front[..., 0] > front[..., 2] + 60))
        heights.append(rows.mean())
    env.close()
    assert heights[0] < heights[1], "a hand that is raised stands higher in the picture"


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("metaworld/drawer-opn-v3", {}, "drawer-open-v3"),
        ("metaworld/", {}, "is not an environment"),
        ("metaworld/reach-v3", {"cameras": ("side",)}, "no camera 'side'"),
        ("metaworld/reach-v3", {"cameras": ("front", "front")}, "named twice"),
        ("metaworld/reach-v3", {"render": "slow"}, "render preset"),
        ("metaworld/reach-v3", {"action_repeat": 0}, "action_repeat=0"),
        ("metaworld/reach-v3", {"max_steps": 0}, "max_steps=0"),
        ("metaworld/reach-v3", {"image_size": 4}, "image_size=4"),
        ("tidy_drawer", {"action_repeat": 4}, "action_repeat=4"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(name, settings, words):
    with pytest.raises(ConfigError, match=words) as told:
        make_env(name, **settings)
    assert "\n" not in str(told.value)


def test_actions_that_cannot_be_are_refused(drawer):
    drawer.reset(seed=0)
    for action in (np.zeros(3), np.array([0, 0, 0, np.nan])):
        with pytest.raises(ConfigError, match="4 finite numbers"):
            drawer.step(action)


def test_touching_is_told_as_meta_world_tells_it(picking):
    from metaworld.sawyer_xyz_env import SawyerXYZEnv

    inner, touched = picking._inner, 0
    picking.reset(seed=1)
    for action in demonstrate(picking, "clean", np.random.default_rng(1)):
        picking.step(action)
        for thing in (inner._get_id_main_object(), 0, picking.model.ngeom - 1):
            theirs = SawyerXYZEnv.touching_object(inner, thing)
            assert inner.touching_object(thing) == theirs
            touched += theirs
        if picking._succeeded:
            break
    assert touched > 5


@pytest.mark.slow
@pytest.mark.parametrize("task", list(TASKS))
def test_every_task_is_recorded_in_mixed_quality(task, run_command, tmp_path):
    from robo_datasets import DemoStore

    store = tmp_path / "demos.zarr"
    code, _, errors = run_command(
        "record", f"env=metaworld/{task}-v3", "quality=mixed", "episodes=2", f"store={store}", "image_size=32"
    )
    assert code == 0, errors
    opened = DemoStore.open(store)
    assert len(opened) == 2
    assert tuple(opened.stages) == TASKS[task].stages
    for episode in opened:
        progress = episode["simulator.progress"][:][:, 0]
        assert ((progress >= 0) & (progress <= 1)).all()
        assert (progress[-1] == 1.0) == bool(episode.success)
        assert set(np.unique(episode.stage)) <= set(range(len(TASKS[task].stages)))


@pytest.mark.slow
@pytest.mark.parametrize("task", list(TASKS))
def test_clean_demonstrations_of_every_task_mostly_succeed(task):
    env = make_env(f"metaworld/{task}-v3", max_steps=900)
    assert sum(run(env, "clean", seed)[2]["success"] for seed in range(4)) >= 3


def test_a_missing_package_is_told_with_the_command_that_brings_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "metaworld", None)
    monkeypatch.delitem(sys.modules, "metaworld.env_dict", raising=False)
    with pytest.raises(MissingPartError, match=r"robo-rm\[envs\]"):
        make_env("metaworld/reach-v3")
