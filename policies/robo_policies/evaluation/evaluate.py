"""How often a policy succeeds: many seeded starts, the same for every policy, with a confidence interval."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from robo_core.console import progress_bar
from robo_core.errors import ConfigError, ModelError
from robo_core.processes import run_in_processes
from robo_core.threads import available_cores
from robo_policies.cloning.learned import load_policy
from robo_policies.cloning.settings import Execution
from robo_policies.cloning.steering_settings import SteeringSettings
from robo_policies.evaluation.environments import EnvironmentPool, EnvSource, start_seed
from robo_policies.evaluation.results import Evaluation
from robo_policies.evaluation.rollouts import (
    WAVE,
    Policy,
    Rollout,
    check_fits,
    frames_per_second,
    image_size_of,
    run_wave,
)
from robo_policies.evaluation.videos import Video, best_and_worst, write_episode

MAX_PROCESSES = 2
Wave = Sequence[int]
"""Numbers of episodes that share their inferences."""


def evaluate(
    policy: Policy,
    env: EnvSource,
    episodes: int = 100,
    seed: int = 0,
    execution: Execution | None = None,
    processes: int | None = None,
    videos: int = 0,
    video_folder: Path | None = None,
    title: str = "evaluate",
    steering: SteeringSettings | None = None,
) -> Evaluation:
    """Run ``policy`` from ``episodes`` seeded starts.

    Episode i starts from seed ``seed * 1 000 000 + i`` whatever the policy, so two policies evaluated with the same
    ``seed`` and ``episodes`` face the same starts and can be compared in pairs.

    Args:
        policy: what `load_policy` gave, or any other `Policy`.
        env: the name of an environment, which may run in several copies and processes; a function that makes one,
            which may run in several copies; or one environment, which runs one episode after the other.
        episodes: how many.
        seed: names the starts.
        execution: how chunks are executed.
        processes: None for up to two, one per core; more than one needs the name of an environment and a policy from a
            folder that is not steered by a function of its own.
        videos: number of best episodes and of worst ones to write videos of; they are run once more for it.
        video_folder: where the videos go.
        title: of the progress bar.
        steering: steers a diffusion policy for this evaluation by a function in a file.

    Raises:
        ConfigError: a number is out of range, or the environment does not exist.
        ModelError: the policy's sizes are not the environment's, or it cannot be steered.
        WorkerDiedError: a worker process died.
    """
    execution, steering = execution or Execution(), steering or SteeringSettings()
    check_request(policy, env, episodes, seed, execution, videos, steering)
    if videos and video_folder is None:
        raise ConfigError("videos need a folder to be written to")
    pool = EnvironmentPool(env, image_size_of(policy))
    stages = tuple(getattr(pool.take(1)[0].unwrapped, "stages", ()))
    waves = [range(start, min(start + WAVE, episodes)) for start in range(0, episodes, WAVE)]
    folder = getattr(policy, "folder", None)
    # A function that steers cannot be handed to another process; the name of one in a file can.
    own = getattr(policy, "steering", None) is not None and steering.reward is None
    parallel = isinstance(env, str) and folder is not None and not own
    if processes is None:
        processes = min(MAX_PROCESSES, available_cores(), len(waves)) if parallel else 1
    if processes > 1 and not parallel:
        raise ConfigError(
            "a policy that is steered by a function runs in one process; give processes=1, or the function's file"
            if own
            else "more than one process needs the name of an environment and a policy loaded from a folder"
        )
    rollouts: list[Rollout] = []
    with steered(policy, steering), progress_bar(title, total=episodes, unit="episodes") as bar:

        def note(finished: Sequence[Rollout]) -> None:
            rollouts.extend(finished)
            good = sum(rollout.success for rollout in rollouts)
            bar.advance(len(finished), note=f"success {good}/{len(rollouts)}")

        if processes > 1:
            state = partial(_open_worker, Path(str(folder)), str(env), seed, execution, steering)
            run_in_processes(_run_in_worker, waves, processes, state, note, f"evaluating {folder}", ordered=True)
        else:
            run_waves(policy, pool, seed, waves, execution, note)
    written: tuple[Video, ...] = ()
    if videos and video_folder is not None:
        with steered(policy, steering):
            written = _write_videos(policy, pool, seed, waves, execution, rollouts, videos, video_folder)
    pool.close()
    return Evaluation(tuple(rollouts), stages, written)


_Worker = tuple[Policy, EnvironmentPool, int, Execution]


@contextmanager
def _open_worker(
    folder: Path, env: str, seed: int, execution: Execution, steering: SteeringSettings
) -> Iterator[_Worker]:
    policy = load_policy(folder, "cpu")
    pool = EnvironmentPool(env, image_size_of(policy))
    with steered(policy, steering):
        yield policy, pool, seed, execution
    pool.close()


def _run_in_worker(state: _Worker, wave: Wave) -> list[Rollout]:
    policy, pool, seed, execution = state
    rollouts: list[Rollout] = []
    run_waves(policy, pool, seed, [wave], execution, rollouts.extend)
    return rollouts


@contextmanager
def steered(policy: Policy, steering: SteeringSettings) -> Iterator[None]:
    """Steer ``policy`` for a while; where ``steering`` has no reward, leave it as it is.

    Raises:
        ConfigError: the reward cannot be loaded.
        ModelError: the policy is not one that can be steered.
    """
    found = steering.load()
    if found is None:
        yield
        return
    if not hasattr(policy, "steering"):
        raise ModelError(f"a {type(policy).__name__} cannot be steered; only diffusion policies can")
    before, policy.steering = policy.steering, found
    try:
        yield
    finally:
        policy.steering = before


def check_request(
    policy: Policy,
    env: EnvSource,
    episodes: int,
    seed: int,
    execution: Execution,
    videos: int = 0,
    steering: SteeringSettings | None = None,
) -> None:
    """Check everything that `evaluate` would refuse.

    Raises:
        ConfigError: a number is out of range, or the environment does not exist.
        ModelError: the policy's sizes are not the environment's, or it cannot be steered so.
    """
    if episodes < 1:
        raise ConfigError(f"episodes={episodes} must be at least 1")
    if seed < 0:
        raise ConfigError(f"seed={seed} must not be negative")
    if videos < 0:
        raise ConfigError(f"videos={videos} must not be negative")
    execution.validate()
    pool = EnvironmentPool(env, image_size_of(policy))
    check_fits(policy, pool.take(1)[0])
    if steering is not None and steering.reward is not None:
        from gymnasium.wrappers import TimeLimit

        with steered(policy, steering):
            run_wave(policy, [TimeLimit(pool.take(1)[0], 1)], [0], [start_seed(seed, 0)], execution)
    pool.close()


def _write_videos(
    policy: Policy,
    pool: EnvironmentPool,
    seed: int,
    waves: Sequence[Wave],
    execution: Execution,
    rollouts: Sequence[Rollout],
    number: int,
    folder: Path,
) -> tuple[Video, ...]:
    """Run the best and the worst episodes again, with all others of their waves, and write their videos.

    The whole wave, because inferences are shared: alone, the last bits of an action would differ.
    """
    picked = best_and_worst(rollouts, number)
    kinds = {rollout.episode: kind for kind, rollout in picked}
    again = [wave for wave in waves if any(episode in kinds for episode in wave)]
    videos: dict[int, Video] = {}
    fps = frames_per_second(pool.take(1)[0])

    def write(rollout: Rollout, frames: list[np.ndarray]) -> None:
        videos[rollout.episode] = write_episode(folder, kinds[rollout.episode], rollout, frames, fps)

    run_waves(policy, pool, seed, again, execution, lambda rollouts: None, kinds, write)
    return tuple(videos[rollout.episode] for _, rollout in picked if rollout.episode in videos)


def run_waves(
    policy: Policy,
    pool: EnvironmentPool,
    seed: int,
    waves: Sequence[Wave],
    execution: Execution,
    note: Callable[[Sequence[Rollout]], None],
    filmed: Collection[int] = (),
    on_video: Callable[[Rollout, list[np.ndarray]], None] | None = None,
) -> None:
    """Run waves of episodes in this process and give ``note`` the rollouts of each, ``on_video`` the frames."""
    import torch

    if pool.single:
        waves = [[episode] for wave in waves for episode in wave]
    threads = torch.get_num_threads()
    # One thread: the network is small, the cores are better spent on a process each, and the last bits of an action
    # (and with them the outcome of a close call) do not depend on how many cores there are.
    torch.set_num_threads(1)
    try:
        for wave in waves:
            seeds = [start_seed(seed, episode) for episode in wave]
            envs = pool.take(len(wave))
            note(run_wave(policy, envs, wave, seeds, execution, lambda episode: episode in filmed, on_video))
    finally:
        torch.set_num_threads(threads)
