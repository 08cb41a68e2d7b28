"""The wrappers return the shaped reward of the formula: one environment and vectors of them, both auto-reset modes."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from returns import n_step_return

from robo_core.errors import ConfigError
from robo_policies.rl.envs.shaped_reward import POTENTIAL, ShapedReward, ShapedVectorReward
from robo_rm.shaping.modes import ShapingSettings
from robo_rm.shaping.potential import TRUE_PROGRESS, NoPotential, TrueProgress

DISCOUNT = 0.9


class Walk(gymnasium.Env[Any, Any]):
    """Walks by the action; ends with reward 1 beyond 1, or by time. Each episode starts a bit further."""

    def __init__(self, limit: int = 7, dictionary: bool = True) -> None:
        self.limit, self.dictionary, self.episode = limit, dictionary, -1
        place = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.observation_space = spaces.Dict({"place": place}) if dictionary else place
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode += 1
        self.place, self.steps = 0.01 * self.episode, 0
        return self._seen(), {"progress": self.place}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place += float(action[0])
        self.steps += 1
        done = self.place >= 1
        return self._seen(), float(done), done, not done and self.steps >= self.limit, {"progress": self.place}

    def _seen(self) -> Any:
        place = np.array([self.place], dtype=np.float32)
        return {"place": place} if self.dictionary else place


class Remembers:
    """Progress plus a hundredth of the observations since the episode began: a potential with a history."""

    version, cameras = "remembers", ()

    def __init__(self, count: int) -> None:
        self.seen = np.zeros(count, dtype=int)

    def begin(self, which: Any) -> None:
        self.seen[which] = 0

    def score(self, observations: Any, which: Any) -> Any:
        self.seen[which] += 1
        return observations[TRUE_PROGRESS] + 0.01 * self.seen[which]


def transitions(env: Any, actions: list[float]) -> list[tuple[float, float, float, float, bool, bool]]:
    """(reward, task reward, Phi, Phi', terminated, truncated) of single steps, resetting by hand."""
    env.reset()
    made = []
    for action in actions:
        _, reward, terminated, truncated, info = env.step(np.array([action]))
        made.append((reward, info["task_reward"], info["potential"], info["next_potential"], terminated, truncated))
        if terminated or truncated:
            env.reset()
    return made


paces = st.lists(st.floats(-0.2, 0.6), min_size=5, max_size=40)


@given(paces, paces)
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_vector_makes_the_transitions_of_its_environments(mode: Any, first: list[float], second: list[float]) -> None:
    """Whatever the auto-reset mode: no row of a reset is a transition, and every end has its own potential."""
    expected = [transitions(ShapedReward(Walk(), Remembers(1), DISCOUNT), actions) for actions in (first, second)]
    vector = ShapedVectorReward(SyncVectorEnv([Walk, Walk], autoreset_mode=mode), Remembers(2), DISCOUNT)
    vector.reset()
    queues, made = [list(first), list(second)], [[], []]  # type: ignore[var-annotated]
    for _ in range(3 * max(len(first), len(second))):
        actions = np.array([[queue[0] if queue else 0.0] for queue in queues])
        _, rewards, terminated, truncated, infos = vector.step(actions)
        for i in range(2):
            if infos["transition"][i] and queues[i]:
                queues[i].pop(0)
                parts = (infos["task_reward"][i], infos["potential"][i], infos["next_potential"][i])
                made[i].append((rewards[i], *parts, terminated[i], truncated[i]))
            elif not infos["transition"][i]:
                assert rewards[i] == 0
    for mine, theirs in zip(made, expected, strict=True):
        np.testing.assert_allclose(np.array(mine, dtype=float), np.array(theirs, dtype=float), atol=1e-9)


@given(paces, st.integers(1, 5), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_an_episode_telescopes_with_any_action_repeat(actions: list[float], repeat: int, limit: int) -> None:
    env = ShapedReward(Walk(limit), Remembers(1), DISCOUNT, action_repeat=repeat)
    _, info = env.reset()
    start = info["potential"]
    rewards, task_rewards, steps = [], [], []
    ended = False
    for action in actions:
        _, reward, terminated, truncated, info = env.step(np.array([action]))
        rewards.append(reward)
        task_rewards.append(info["task_reward"])
        steps.append(info["steps"])
        ended = terminated
        if terminated or truncated:
            break
    shaped, lasted = n_step_return(rewards, steps, DISCOUNT)
    plain, _ = n_step_return(task_rewards, steps, DISCOUNT)
    after = 0.0 if ended else DISCOUNT**lasted * info["next_potential"]
    assert shaped == pytest.approx(plain + after - start, abs=1e-6)
    assert lasted <= limit


def test_the_observation_shows_the_potential() -> None:
    for dictionary in (True, False):
        env = ShapedReward(Walk(dictionary=dictionary), TrueProgress(), DISCOUNT)
        seen, _ = env.reset()
        seen, *_ = env.step(np.array([0.25], dtype=np.float32))
        assert env.observation_space.contains(seen)
        shown = seen[POTENTIAL][0] if dictionary else seen[-1]
        assert shown == pytest.approx(0.25)


def test_sparse_is_task_reward_alone() -> None:
    env = ShapedReward(Walk(), NoPotential(), DISCOUNT, ShapingSettings("sparse"), action_repeat=3)
    env.reset()
    # 1.0 is reached in the second of three steps, whose reward is discounted once.
    _, reward, terminated, _, info = env.step(np.array([0.6]))
    assert (reward, terminated, info["steps"]) == (pytest.approx(DISCOUNT), True, 2)


class Shows(Walk):
    """The walk with a picture that is as bright as the place."""

    def __init__(self, show: bool) -> None:
        super().__init__()
        self.show = show
        if show:
            image = spaces.Box(0, 255, (4, 4, 3), np.uint8)
            self.observation_space = spaces.Dict({**self.observation_space.spaces, "observation.images.front": image})

    def render_cameras(self, cameras: Any) -> dict[str, Any]:
        image = np.full((4, 4, 3), np.clip(100 * self.place, 0, 255), dtype=np.uint8)
        return {f"observation.images.{camera}": image for camera in cameras}

    def _seen(self) -> Any:
        return {**super()._seen(), **(self.render_cameras(("front",)) if self.show else {})}


class Brightness(NoPotential):
    """Mean brightness."""

    version, cameras = "brightness", ("observation.images.front",)  # type: ignore[assignment]

    def score(self, observations: Any, which: Any) -> Any:
        return observations["observation.images.front"].mean(axis=(1, 2, 3)) / 100


def test_images_are_shown_or_rendered_the_same() -> None:
    made = []
    for show in (True, False):
        vector = ShapedVectorReward(SyncVectorEnv([lambda s=show: Shows(s)] * 2), Brightness(), DISCOUNT)
        vector.reset()
        steps = [vector.step(np.array([[0.3], [0.2]])) for _ in range(12)]
        made.append([(step[1], step[4]["potential"]) for step in steps])
    np.testing.assert_array_equal(made[0], made[1])


def test_a_final_image_that_cannot_be_had_is_told() -> None:
    vector = SyncVectorEnv([lambda: Shows(False)], autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(ConfigError, match="final image cannot be rendered"):
        ShapedVectorReward(vector, Brightness(), DISCOUNT)


def test_wrong_use_is_told() -> None:
    with pytest.raises(ConfigError, match="give 1 step or more"):
        ShapedReward(Walk(), NoPotential(), DISCOUNT, action_repeat=0)
    with pytest.raises(ConfigError, match="mode"):
        ShapedReward(Walk(), NoPotential(), DISCOUNT, ShapingSettings("dense"))
    with pytest.raises(ConfigError, match="NEXT_STEP or SAME_STEP"):
        ShapedVectorReward(SyncVectorEnv([Walk], autoreset_mode=AutoresetMode.DISABLED), NoPotential(), DISCOUNT)
    with pytest.raises(ConfigError, match="neither observes nor can render"):
        ShapedReward(Walk(), Brightness(), DISCOUNT).reset()


def test_modes_with_a_half_in_the_learner_are_refused() -> None:
    with pytest.raises(ConfigError, match="learner made for it"):
        ShapedReward(Walk(), NoPotential(), DISCOUNT, ShapingSettings("bilevel"))
