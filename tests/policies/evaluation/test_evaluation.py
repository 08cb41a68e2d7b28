from __future__ import annotations

import numpy as np
import pytest
from drawer_policies import drawer_policy

from robo_core.errors import ConfigError, ModelError
from robo_policies import Execution, evaluate
from robo_policies.evaluation.environments import start_seed
from robo_policies.evaluation.results import Evaluation
from robo_policies.evaluation.rollouts import WAVE, Rollout
from robo_policies.evaluation.videos import best_and_worst


class Script:
    """A policy that follows a rule, for the toy task."""

    chunk_size, execution_horizon = 4, 2
    dims = {"observation.state": 2, "observation.environment_state": 3, "action": 2}  # noqa: RUF012

    def __init__(self, gain: float) -> None:
        self.gain, self.batches, self.starts = gain, [], []

    def act(self, observation):
        place, goal = observation["observation.state"], observation["observation.environment_state"][:, :2]
        self.batches.append(len(place))
        steps = self.gain * np.arange(1, 5)[None, :, None]
        return place[:, None] + steps * (goal - place)[:, None]

    def reset(self):
        self.starts.append(len(self.batches))


class Recording:
    """Makes environments and keeps the seeds they were reset with."""

    def __init__(self, kind):
        self.kind, self.seeds = kind, []

    def __call__(self):
        env, seeds = self.kind(), self.seeds
        reset = env.reset

        def noted(seed=None, options=None):
            seeds.append(seed)
            return reset(seed=seed, options=options)

        env.reset = noted
        return env


def test_a_good_rule_succeeds_and_a_bad_one_does_not(point_env):
    good, bad = evaluate(Script(0.2), point_env, episodes=13), evaluate(Script(-0.2), point_env, episodes=13)
    assert (good.success_rate, bad.success_rate) == (1.0, 0.0)
    assert good.interval[0] > 0.7
    assert bad.metrics()["seconds_to_success"] is None
    assert all(rollout.steps == 40 and rollout.seconds == 4.0 for rollout in bad.rollouts)
    assert sum(bad.stopped_at().values()) == 13
    assert list(bad.stopped_at()) == ["far", "near"]
    assert good.metrics()["return"] == 1.0


def test_two_policies_face_the_same_starts_and_another_seed_gives_others(point_env):
    seeds = []
    for gain, seed in ((0.2, 3), (-0.2, 3), (0.2, 4)):
        envs = Recording(point_env)
        evaluate(Script(gain), envs, episodes=12, seed=seed)
        seeds.append(envs.seeds)
    assert seeds[0] == seeds[1] == [start_seed(3, episode) for episode in range(12)]
    assert not set(seeds[0]) & set(seeds[2])


def test_environments_of_a_wave_share_their_inferences(point_env):
    policy = Script(-0.01)
    evaluate(policy, point_env, episodes=WAVE + 3)
    assert set(policy.batches) == {WAVE, 3}
    assert len(policy.batches) == 2 * 40 / policy.execution_horizon
    assert len(policy.starts) == 2


def test_one_environment_runs_one_episode_after_the_other_with_the_same_outcome(point_env):
    alone = evaluate(Script(0.05), point_env(), episodes=5, seed=1)
    together = evaluate(Script(0.05), point_env, episodes=5, seed=1)
    assert alone.rollouts == together.rollouts


def test_the_learned_policy_solves_the_toy_task_however_its_chunks_are_played(point_policy, point_env):
    for execution in (None, Execution(horizon=1), Execution(ensemble=0.1)):
        assert evaluate(point_policy.policy, point_env, episodes=20, execution=execution).success_rate >= 0.9


def test_videos_show_the_best_and_the_worst_episode_as_they_went(point_env, tmp_path):
    import av

    result = evaluate(Script(0.04), point_env, episodes=WAVE + 3, videos=1, video_folder=tmp_path)
    best, worst = result.videos
    assert (best.kind, worst.kind) == ("best", "worst")
    ranked = sorted(result.rollouts, key=lambda one: (not one.success, one.steps))
    assert best.rollout == ranked[0]
    assert worst.rollout.steps == max(one.steps for one in result.rollouts)
    assert {video.rollout for video in result.videos} <= set(result.rollouts), "run again, they go as before"
    for video in result.videos:
        with av.open(str(video.path)) as container:
            assert len(list(container.decode(video=0))) == video.rollout.steps + 1
            assert container.streams.video[0].average_rate == 10
        assert video.strip.shape == (8, 32, 32, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(video.path.name for video in result.videos)


def test_no_episode_has_two_videos():
    rollouts = [rollout(i, i < 2, 0) for i in range(3)]
    picked = best_and_worst(rollouts, 2)
    assert [(kind, one.episode) for kind, one in picked] == [("best", 0), ("best", 1), ("worst", 2)]
    assert len(best_and_worst(rollouts[:1], 5)) == 1


class Seeing(Script):
    """Needs an image and the last three observations, and to know whose they are."""

    cameras = {"observation.images.front": (16, 16)}  # noqa: RUF012
    observation_steps = 3
    follows_episodes = True

    def act(self, observation, which):
        assert observation["observation.state"].shape == (len(which), 3, 2)
        assert observation["observation.images.front"].shape == (len(which), 3, 32, 32, 3)
        images = observation["observation.images.front"][:, -1].reshape(len(which), -1, 3).any(-1)
        assert images.any(1).all(), "every image shows the point"
        self.seen = observation
        return super().act({key: value[:, -1] for key, value in observation.items()})


class PointWithCamera:
    """Makes toy tasks that can be rendered."""

    def __init__(self, kind):
        self.kind = kind

    def __call__(self):
        env = self.kind()
        env.render_cameras = lambda cameras: {f"observation.images.{name}": env.render() for name in cameras}
        return env


def test_a_policy_gets_the_images_and_the_past_that_it_was_trained_with(point_env):
    policy = Seeing(0.2)
    assert evaluate(policy, PointWithCamera(point_env), episodes=4).success_rate == 1.0
    states = policy.seen["observation.state"]
    assert not np.array_equal(states[:, 0], states[:, 2]), "oldest first, newest last"


def test_a_camera_that_the_environment_lacks_is_named(point_env):
    with pytest.raises(ModelError, match=r"looks through 'observation.images.front', which point does not have"):
        evaluate(Seeing(0.2), point_env, episodes=1)


def rollout(episode, success, stage):
    return Rollout(episode, episode, success, 10, 1.0 + episode, stage, stage, 0.5, 0.6, float(success))


def test_metrics_of_an_evaluation():
    result = Evaluation((rollout(0, True, 1), rollout(1, False, 0), rollout(2, False, 1)), ("reach", "grasp"))
    metrics = result.metrics()
    assert metrics["success_rate"] == pytest.approx(1 / 3)
    assert metrics["seconds_to_success"] == 1.0
    assert result.stopped_at() == {"reach": 1, "grasp": 1}
    assert ("failures that reached: grasp", "1") in result.rows()


@pytest.mark.parametrize(
    ("dims", "words"),
    [
        ({"observation.state": 4}, r"'observation.state' of 4 values and point has shape \(2,\)"),
        ({"action": 7}, r"'action' of 7 values and point has shape \(2,\)"),
        ({"observation.force": 1}, "needs 'observation.force', which point does not give"),
    ],
)
def test_sizes_that_differ_between_policy_and_environment_are_named(point_env, dims, words):
    policy = Script(0.2)
    policy.dims = {**Script.dims, **dims}
    with pytest.raises(ModelError, match=words):
        evaluate(policy, point_env, episodes=1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"episodes": 0}, "episodes=0"),
        ({"seed": -1}, "seed=-1"),
        ({"videos": -1}, "videos=-1"),
        ({"videos": 1}, "need a folder"),
        ({"execution": Execution(horizon=0)}, "horizon=0"),
        ({"execution": Execution(ensemble=-1.0)}, "ensemble"),
        ({"processes": 2}, "name of an environment"),
    ],
)
def test_requests_that_cannot_be_are_refused(point_env, settings, words):
    with pytest.raises(ConfigError, match=words):
        evaluate(Script(0.2), point_env, **{"episodes": 1, **settings})


def test_an_unknown_environment_is_refused():
    with pytest.raises(ConfigError, match="tidy_drawer"):
        evaluate(Script(0.2), "untidy_drawer", episodes=1)


def test_processes_give_the_outcome_of_one_process(tiny_act, tmp_path):
    policy = drawer_policy(tmp_path, tiny_act)
    execution = Execution(horizon=5)
    alone = evaluate(policy, "tidy_drawer", episodes=WAVE + 2, execution=execution, processes=1)
    parallel = evaluate(policy, "tidy_drawer", episodes=WAVE + 2, execution=execution, processes=2)
    assert alone.rollouts == parallel.rollouts
    assert len({rollout.progress for rollout in alone.rollouts}) > 1


def test_an_error_in_a_worker_ends_the_evaluation(tiny_act, tmp_path):
    policy = drawer_policy(tmp_path, tiny_act)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks model\.safetensors"):
        evaluate(policy, "tidy_drawer", episodes=WAVE + 2, processes=2)
