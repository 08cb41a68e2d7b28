"""Parts of tidy-drawer: each begins where its stage does, ends with it, and can be demonstrated."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from robo_core.errors import ConfigError
from robo_policies.envs import demonstrate, make_env
from robo_policies.envs.tidy_drawer.progress import STAGES, stage_of
from robo_policies.envs.tidy_drawer.skills import SKILLS, TidyDrawerSkillEnv

PARTS = (*SKILLS, "from_carry")


def skill(part: str, max_steps: int | None = None) -> TidyDrawerSkillEnv:
    env = make_env(f"tidy_drawer/{part}", max_steps=max_steps)
    assert isinstance(env, TidyDrawerSkillEnv)
    return env


@pytest.mark.parametrize("part", PARTS)
def test_an_episode_begins_with_its_stage_and_is_fixed_by_its_seed(part: str) -> None:
    env, other = skill(part), skill(part)
    for seed in range(5):
        first, info = env.reset(seed=seed)
        # Grasping begins a little above the cube, where the stage of the whole task is still reaching.
        assert stage_of(env.situation()) - env.first in ((0, -1) if part == "grasp" else (0,))
        assert not info["success"]
        assert 0.0 <= info["progress"] < 0.5
        again, _ = other.reset(seed=seed)
        for key, value in first.items():
            np.testing.assert_array_equal(value, again[key])


@pytest.mark.parametrize("part", PARTS)
def test_a_clean_demonstration_ends_the_part_and_no_more(part: str) -> None:
    env = skill(part)
    _, info = env.reset(seed=3)
    terminated = truncated = False
    before = info["progress"]
    best = before
    seen = [info["stage"]]
    for action in demonstrate(env, "clean", np.random.default_rng(0)):
        _, reward, terminated, truncated, info = env.step(action)
        best = max(best, info["progress"])
        assert info["stage_name"] == env.stages[info["stage"]]
        seen.append(info["stage"])
        if terminated or truncated:
            break
    assert terminated
    assert not truncated
    assert reward == info["progress"] == 1.0
    assert info["success"]
    # Every stage of the part, in order, and none twice.
    assert [stage for stage, _ in itertools.groupby(seen)] == list(range(len(env.stages)))
    assert part in ("open", "carry") or env.stages == STAGES[env.first : env.last + 1]


@pytest.mark.parametrize(("quality", "success"), [("drop_and_regrasp", True), ("stops_partway", False)])
def test_qualities_mean_what_they_say(quality: str, success: bool) -> None:
    env = skill("from_carry", max_steps=900)
    env.reset(seed=0)
    info: dict[str, object] = {}
    for action in demonstrate(env, quality, np.random.default_rng(0)):
        *_, terminated, _, info = env.step(action)
        if terminated:
            break
    assert info["success"] is success


def test_the_limit_is_the_share_of_the_whole_task() -> None:
    assert skill("from_carry").max_steps == 282
    assert skill("open", max_steps=50).max_steps == 50


def test_an_unknown_part_is_told() -> None:
    with pytest.raises(ConfigError, match="choose tidy_drawer/open"):
        make_env("tidy_drawer/polish")
