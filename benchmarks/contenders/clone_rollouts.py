"""Rollouts of a policy cloned from a store, recorded into a copy of another: failures for a reward model to learn from.

    python benchmarks/contenders/clone_rollouts.py STORE VIDEOS COPY ENV EPISODES REPEAT FIRST_SEED NOISE [NOISE ...]

Demonstrations show a reward model how operators move. A learner's first episodes look different, and a model that never
saw any mistakes them for progress. The copy contains VIDEOS and rollouts of the clone of STORE with noise on its
actions (each standard deviation in turn), annotated by the simulator as a person would: with the environment's own
stages, or as many equal parts of its progress as VIDEOS has stages, if those are others. Seeds count up from
FIRST_SEED, which lies far from those of demonstrations, training and evaluations.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from robo_core.console import progress_bar
from robo_datasets import DemoStore
from robo_policies import make_env
from robo_policies.rl.runners.experiment import Experiment
from robo_policies.rl.settings import LearningSettings, RunSettings, SacSettings
from robo_rm.shaping.modes import ShapingSettings


def main(
    store: str,
    videos: str,
    copy: str,
    env_name: str,
    episodes: int,
    action_repeat: int,
    first_seed: int,
    noises: list[float],
) -> None:
    settings = RunSettings(
        env_name, store, None, None, "none", None, ShapingSettings("sparse"),
        LearningSettings(action_repeat=action_repeat), SacSettings(), 0, None,
    )  # fmt: skip
    partial = Path(f"{copy}.part")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(videos, partial, ignore=shutil.ignore_patterns("derived"))
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment(settings, Path(folder))
    clone = experiment.prior
    assert clone is not None
    rollouts = DemoStore.open(partial)
    cameras = [key.removeprefix("observation.images.") for key in rollouts.features if "images" in key]
    env = make_env(env_name, image_size=next(v["shape"][0] for k, v in rollouts.features.items() if "images" in k))
    parts = 0 if tuple(rollouts.stages) == tuple(env.stages) else len(rollouts.stages)
    rng = np.random.default_rng(0)
    with progress_bar("roll out", total=episodes, unit="episodes") as bar:
        for number in range(episodes):
            observation, info = env.reset(seed=first_seed + number)
            over = False
            attributes = {"quality": "clone", "seed": first_seed + number}
            with rollouts.writer(task=env.task, attributes=attributes) as episode:
                while not over:
                    action = clone({key: value[None] for key, value in observation.items()})[0]
                    noise = noises[number % len(noises)] * rng.normal(size=action.shape)
                    noisy = np.clip(action + noise, -1, 1).astype(np.float32)
                    for command in experiment.actions.commands(observation["observation.state"], noisy):
                        frame = {**observation, **env.render_cameras(cameras), "action": command}
                        frame["simulator.progress"] = np.array([info["progress"]], np.float32)
                        part = min(int(info["progress"] * parts), parts - 1)
                        stage = part if parts else info["stage"]
                        episode.add(frame, timestamp=len(episode) / env.fps, stage=stage)
                        observation, _, terminated, truncated, info = env.step(command)
                        over = terminated or truncated
                        if over:
                            break
                episode.success = bool(info["success"])
            bar.advance(1, note=f"{int(info['success'])}")
    env.close()
    partial.rename(copy)


if __name__ == "__main__":
    words = sys.argv[1:]
    main(
        words[0],
        words[1],
        words[2],
        words[3],
        int(words[4]),
        int(words[5]),
        int(words[6]),
        [float(w) for w in words[7:]],
    )
