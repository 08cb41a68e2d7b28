"""How often a policy succeeds: many seeded starts, the same for every policy, with an interval that can be believed."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robo_datasets.console import progress_bar
from robo_datasets.errors import ConfigError, ModelError
from robo_policies.cloning.settings import Execution
from robo_policies.cloning.steering_settings import SteeringSettings
from robo_policies.evaluation.rollouts import (
    WAVE,
    Policy,
    Rollout,
    check_fits,
    frames_per_second,
    image_size_of,
    run_wave,
)
from robo_policies.evaluation.videos import Film, best_and_worst, write_film
from robo_rm.metrics.intervals import wilson_interval

MOST_PROCESSES = 2


@dataclass(frozen=True)
class Evaluation:
    """The episodes of one policy in one environment.

    Attributes:
        rollouts: one per episode, in order.
        stages: names of the environment's stages; empty where it has none.
        films: the best and the worst episodes, where films were asked for.
    """

    rollouts: tuple[Rollout, ...]
    stages: tuple[str, ...]
    films: tuple[Film, ...] = ()

    @property
    def successes(self) -> int:
        """Number of episodes that succeeded."""
        return sum(rollout.success for rollout in self.rollouts)

    @property
    def success_rate(self) -> float:
        """Share of the episodes that succeeded."""
        return self.successes / len(self.rollouts)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the success rate."""
        found = wilson_interval(self.successes, len(self.rollouts))
        return found.low, found.high

    def stopped_at(self) -> dict[str, int]:
        """Failures by the furthest stage that they reached, in the order of the stages."""
        counts = [0] * len(self.stages)
        for rollout in self.rollouts:
            if not rollout.success and 0 <= rollout.stage < len(counts):
                counts[rollout.stage] += 1
        return dict(zip(self.stages, counts, strict=True))

    def rows(self) -> list[tuple[str, str]]:
        """What there is to tell, for a table: success with its interval, time, and where failures stopped."""
        low, high = self.interval
        times = [rollout.seconds for rollout in self.rollouts if rollout.success]
        rows = [
            ("success", f"{100 * self.success_rate:.1f} % ({self.successes} of {len(self.rollouts)})"),
            ("95 % interval (Wilson)", f"{100 * low:.1f} to {100 * high:.1f} %"),
            ("time to success", f"{np.mean(times):.1f} s" if times else "-"),
            ("progress at the end", f"{np.mean([rollout.progress for rollout in self.rollouts]):.3f}"),
        ]
        stopped = self.stopped_at().items()
        return rows + [(f"failures that got to: {stage}", str(count)) for stage, count in stopped]

    def metrics(self) -> dict[str, Any]:
        """Flat figures for ``metrics.json``."""
        low, high = self.interval
        times = [rollout.seconds for rollout in self.rollouts if rollout.success]
        return {
            "episodes": len(self.rollouts),
            "successes": self.successes,
            "success_rate": self.success_rate,
            "success_low": low,
            "success_high": high,
            "seconds_to_success": float(np.mean(times)) if times else None,
            "return": float(np.mean([rollout.total_reward for rollout in self.rollouts])),
            "progress": float(np.mean([rollout.progress for rollout in self.rollouts])),
            "best_progress": float(np.mean([rollout.best_progress for rollout in self.rollouts])),
            "stage_reached": float(np.mean([rollout.stage for rollout in self.rollouts])),
        }


def evaluate(
    policy: Policy,
    env: Any,
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
        policy: what :func:`load_policy` gave, or any other :class:`~robo_policies.evaluation.rollouts.Policy`.
        env: the name of a world, which may run in several copies and processes; a function that makes an environment,
            which may run in several copies; or one environment, which runs one episode after the other.
        episodes: how many.
        seed: names the starts.
        execution: how chunks are carried out.
        processes: None for one per core, two at most; more than one needs a world's name and a policy from a folder
            that is not steered by a function of its own.
        videos: film so many of the best episodes and of the worst; they are run once more for it.
        video_folder: where the films go.
        title: what the progress bar says.
        steering: steers a diffusion policy for this evaluation by a function in a file.

    Raises:
        ConfigError: a number is out of range, or the world does not exist.
        ModelError: the policy's sizes are not the environment's, it cannot be steered, or a worker process failed.
    """
    execution, steering = execution or Execution(), steering or SteeringSettings()
    check_request(policy, env, episodes, seed, execution, videos, steering)
    if videos and video_folder is None:
        raise ConfigError("videos need a folder to be written to")
    pool = EnvironmentPool(env, image_size_of(policy))
    stages = tuple(getattr(pool.take(1)[0].unwrapped, "stages", ()))
    jobs = [list(range(start, min(start + WAVE, episodes))) for start in range(0, episodes, WAVE)]
    folder = getattr(policy, "folder", None)
    # A function that steers cannot be handed to another process; the name of one in a file can.
    own = getattr(policy, "steering", None) is not None and steering.reward is None
    spread = isinstance(env, str) and folder is not None and not own
    if processes is None:
        processes = min(MOST_PROCESSES, len(os.sched_getaffinity(0)), len(jobs)) if spread else 1
    if processes > 1 and not spread:
        raise ConfigError(
            "a policy that is steered by a function runs in one process; give processes=1, or the function's file"
            if own
            else "more than one process needs the name of a world and a policy loaded from a folder"
        )
    finished: list[Rollout] = []
    with steered(policy, steering), progress_bar(title, total=episodes, unit="episodes") as bar:

        def note(rollouts: Sequence[Rollout]) -> None:
            finished.extend(rollouts)
            good = sum(rollout.success for rollout in finished)
            bar.advance(len(rollouts), note=f"success {good}/{len(finished)}")

        if processes > 1:
            from robo_policies.evaluation.worker import run_in_processes

            run_in_processes(Path(str(folder)), env, seed, jobs, execution, processes, note, steering)
        else:
            run_jobs(policy, pool, seed, jobs, execution, note)
    rollouts = tuple(sorted(finished, key=lambda rollout: rollout.episode))
    films: tuple[Film, ...] = ()
    if videos and video_folder is not None:
        with steered(policy, steering):
            films = film(policy, pool, seed, jobs, execution, rollouts, videos, video_folder)
    pool.close()
    return Evaluation(rollouts, stages, films)


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
    env: Any,
    episodes: int,
    seed: int,
    execution: Execution,
    videos: int = 0,
    steering: SteeringSettings | None = None,
) -> None:
    """Check everything that :func:`evaluate` would stumble over.

    Raises:
        ConfigError: a number is out of range, or the world does not exist.
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


def start_seed(seed: int, episode: int) -> int:
    """The seed that episode ``episode`` of evaluation ``seed`` is reset with."""
    return seed * 1_000_000 + episode


def film(
    policy: Policy,
    pool: EnvironmentPool,
    seed: int,
    jobs: Sequence[Sequence[int]],
    execution: Execution,
    rollouts: Sequence[Rollout],
    videos: int,
    folder: Path,
) -> tuple[Film, ...]:
    """Run the best and the worst episodes again, with all others of their waves, and film them.

    The whole wave, because inferences are shared: alone, the last bits of an action would differ.
    """
    picked = best_and_worst(rollouts, videos)
    places = {rollout.episode: kind for kind, rollout in picked}
    waves = [job for job in jobs if any(episode in places for episode in job)]
    films: dict[int, Film] = {}
    fps = frames_per_second(pool.take(1)[0])

    def keep(rollout: Rollout, frames: list[np.ndarray]) -> None:
        films[rollout.episode] = write_film(folder, places[rollout.episode], rollout, frames, fps)

    run_jobs(policy, pool, seed, waves, execution, lambda rollouts: None, places, keep)
    return tuple(films[rollout.episode] for _, rollout in picked if rollout.episode in films)


class EnvironmentPool:
    """Environments made when they are first needed and used again for the next episodes.

    Args:
        env: the name of a world, a function that makes an environment, or one environment.
        image_size: pixels of the pictures of a world given by name; None for its own.
    """

    def __init__(self, env: Any, image_size: int | None = None) -> None:
        self.single = hasattr(env, "step") and not isinstance(env, type)
        self._env = env
        self._image_size = image_size
        self._made: list[Any] = [env] if self.single else []

    def take(self, count: int) -> list[Any]:
        """``count`` environments; an environment that was given is the only one there is."""
        while len(self._made) < count:
            self._made.append(self._make())
        return self._made[:count]

    def close(self) -> None:
        """Close the environments that were made here."""
        if not self.single:
            for env in self._made:
                env.close()

    def _make(self) -> Any:
        if self.single:
            raise ConfigError("one environment cannot run two episodes at once")
        if isinstance(self._env, str):
            from robo_policies.envs import make_env

            return make_env(self._env) if self._image_size is None else make_env(self._env, image_size=self._image_size)
        return self._env()


def run_jobs(
    policy: Policy,
    pool: EnvironmentPool,
    seed: int,
    jobs: Sequence[Sequence[int]],
    execution: Execution,
    note: Callable[[Sequence[Rollout]], None],
    filmed: Collection[int] = (),
    on_film: Callable[[Rollout, list[np.ndarray]], None] | None = None,
) -> None:
    """Run waves of episodes in this process and give ``note`` the rollouts of each, ``on_film`` the pictures."""
    import torch

    if pool.single:
        jobs = [[episode] for job in jobs for episode in job]
    threads = torch.get_num_threads()
    # One thread: the network is small, the cores are better spent on a process each, and the last bits of an action
    # (and with them the outcome of a close call) do not depend on how many cores there are.
    torch.set_num_threads(1)
    try:
        for job in jobs:
            seeds = [start_seed(seed, episode) for episode in job]
            envs = pool.take(len(job))
            note(run_wave(policy, envs, job, seeds, execution, lambda episode: episode in filmed, on_film))
    finally:
        torch.set_num_threads(threads)
